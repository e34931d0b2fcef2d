"""A cloud as a picture: points drawn near over far, shaded where the depth jumps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionpe.viewing.clouds.camera import FIELD, View, extent, spacing
from visionpe.viewing.clouds.cloud import UNKNOWN, Cloud
from visionpe.viewing.figures import new_figure, save_png

NOWHERE = (90, 90, 90)  # of points without a class
WRONG, RIGHT = (215, 48, 39), (190, 196, 200)


def colourings(cloud: Cloud) -> dict[str, NDArray[np.uint8]]:
    """What a cloud can be coloured by: name to colours ``(P, 3)``."""
    table = np.array([*cloud.palette, *(UNKNOWN + 1 - len(cloud.palette)) * [NOWHERE]], np.uint8)
    assert cloud.colors is not None
    found = {"RGB": cloud.colors}
    if cloud.labels is not None:
        found["label"] = table[cloud.labels]
    if cloud.predictions is not None:
        found["prediction"] = table[cloud.predictions]
    if cloud.labels is not None and cloud.predictions is not None:
        wrong = (cloud.labels != cloud.predictions)[:, None]
        errors = np.where(wrong, WRONG, RIGHT).astype(np.uint8)
        found["errors"] = np.where((cloud.labels == UNKNOWN)[:, None], NOWHERE, errors).astype(np.uint8)
    if cloud.features is not None:
        found["features"] = cloud.features
    return found


def project(cloud: Cloud, view: View, width: int, height: int) -> tuple[NDArray, NDArray, NDArray, float]:
    """Points to pixels.

    Returns:
        Column, row and depth of each point, the latter infinite where the surface faces away; pixels of a metre at the
        middle.
    """
    low, high = extent(cloud.points)
    axes, middle = view.axes(), (low + high) / 2
    corners = np.stack(np.meshgrid(*zip(low, high), indexing="ij"), -1).reshape(-1, 3) - middle
    half = np.tan(np.radians(FIELD) / 2)
    # Far enough that every corner of the cloud is in the picture.
    side = np.abs(corners @ axes[:2].T) / (half * np.array([width / height, 1]))
    away = float((side.max(1) + corners @ axes[2]).max(initial=1e-6)) * 1.02
    seen = (cloud.points - middle) @ axes.T  # right, up, back
    depth = away - seen[:, 2]
    focal = height / 2 / half
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = width / 2 + focal * seen[:, 0] / depth, height / 2 - focal * seen[:, 1] / depth
    depth = np.where(depth > 0.05 * away, depth, np.inf)
    if cloud.normals is not None:
        eye = middle + away * axes[2]
        depth = np.where(((eye - cloud.points) * cloud.normals).sum(1) < 0, np.inf, depth)
    # Fill the picture with what is seen.
    pixels, whole = np.stack((column, row)), np.array([[width], [height]])
    seen_at = pixels[:, np.isfinite(depth)]
    least, most = np.percentile(seen_at if seen_at.size else pixels, (0.2, 99.8), axis=1)[..., None]
    zoom = float((0.94 * whole / np.maximum(most - least, 1)).min())
    column, row = (pixels - (least + most) / 2) * zoom + whole / 2
    return column, row, depth, zoom * focal / away


def rasterise(cloud: Cloud, view: View, width: int, height: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """The point at each pixel ``(height, width)``, -1 for none, and how bright it is, 0..1."""
    column, row, depth, metre = project(cloud, view, width, height)
    drawn = np.flatnonzero(np.isfinite(depth) & (np.abs(column) < 1e6) & (np.abs(row) < 1e6))
    drawn = drawn[np.argsort(-depth[drawn], kind="stable")]  # what is written last stays
    radius = float(np.clip(0.9 * spacing(cloud.points) * metre, 0.7, 6))
    reach = int(np.ceil(radius))
    dy, dx = (d.ravel() for d in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    disc = dx**2 + dy**2 <= radius**2
    y = (np.floor(row[drawn]).astype(np.int64)[:, None] + dy[disc]).ravel()
    x = (np.floor(column[drawn]).astype(np.int64)[:, None] + dx[disc]).ravel()
    owner = np.repeat(drawn, int(disc.sum()))
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = np.full((height, width), -1, np.int64)
    index[y[inside], x[inside]] = owner[inside]
    return index, _depth_light(np.where(index < 0, np.inf, depth[index]))


def _depth_light(depth: NDArray[np.floating]) -> NDArray[np.floating]:
    """Darker where neighbouring pixels are nearer (eye-dome lighting, Boucheny 2009)."""
    log = np.log2(np.where(np.isfinite(depth), depth, 1e3))
    drop = np.zeros_like(log)
    for step in (1, 3):
        for shift in ((step, 0), (-step, 0), (0, step), (0, -step)):
            drop += np.maximum(log - np.roll(log, shift, (0, 1)), 0).clip(max=0.05)
    return np.exp(-6.0 * drop)


def write_png(path: Path, cloud: Cloud, view: View, *, size: tuple[int, int] = (900, 700)) -> None:
    """Draw every colouring side by side, with a legend.

    Args:
        path: The picture, written whole or not at all.
        cloud: The points.
        view: Where they are seen from.
        size: Width and height of a panel, pixels.
    """
    from matplotlib.patches import Patch

    index, light = rasterise(cloud, view, *size)
    panels = colourings(cloud)
    figure = new_figure(len(panels) * size[0] / 100, size[1] / 100 + 0.8, dpi=100)
    for axes, (name, colours) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        image = np.where(index[..., None] < 0, 255.0, colours[index] * light[..., None])
        axes.imshow(image.round().astype(np.uint8), interpolation="nearest")
        axes.set_title(name)
        axes.set_axis_off()
    named = zip(cloud.palette, cloud.classes)
    handles = [Patch(color=(r / 255, g / 255, b / 255), label=name) for (r, g, b), name in named]
    if handles and len(panels) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 12), frameon=False)
    figure.suptitle(f"{cloud.name}, {cloud.count:,} points")
    save_png(path, figure, "figure")
