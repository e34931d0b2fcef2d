"""A cloud as one html file that needs nothing else: points inside, drawn by WebGL."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionpe.viewing.clouds.camera import FIELD, View, extent, spacing
from visionpe.viewing.clouds.cloud import Cloud
from visionpe.viewing.html import as_json, write_html

TEMPLATE = Path(__file__).with_name("viewer.html")


def packed(cloud: Cloud) -> tuple[dict[str, Any], bytes]:
    """What the page knows of a cloud, and its points as bytes.

    Positions are shares of the longest side of the box in 16 bits, x y z of a point together, little end first; then
    one byte each for colours, labels, predictions, normals (signed) and features. ``parts`` says where each begins,
    ``sizes`` its bytes a point.
    """
    low = cloud.points.min(0).astype(float)
    span = max(float((cloud.points.max(0) - low).max()), 1e-9)
    arrays: dict[str, NDArray] = {"points": np.round((cloud.points - low) / span * 65535).astype("<u2")}
    for key in ("colors", "labels", "predictions", "features"):
        if (value := getattr(cloud, key)) is not None:
            arrays[key] = value
    if cloud.normals is not None:
        length = np.maximum(np.linalg.norm(cloud.normals, axis=1, keepdims=True), 1e-9)
        arrays["normals"] = np.round(cloud.normals / length * 127).astype(np.int8)
    parts, blobs, end = {}, [], 0
    for key, value in arrays.items():
        parts[key], blob = end, value.tobytes()
        blobs.append(blob)
        end += len(blob)
    sizes = {key: value[0].nbytes for key, value in arrays.items()}
    about = {"count": cloud.count, "low": low.tolist(), "span": span, "parts": parts, "sizes": sizes}
    return about, b"".join(blobs)


def write_page(path: Path, cloud: Cloud, view: View, *, start: str = "RGB", most: int = 200_000) -> int:
    """Write the page.

    Args:
        path: The file, written whole or not at all.
        cloud: The points.
        view: Where they are seen from at first.
        start: What they are coloured by at first: RGB, label, prediction, errors or features.
        most: Points in the page; of larger clouds a random choice.

    Returns:
        How many points are in the page.
    """
    cloud = cloud.thinned(most)
    about, blob = packed(cloud)
    low, high = extent(cloud.points)
    distance = 0.5 * float(np.linalg.norm(high - low)) / np.sin(np.radians(FIELD / 2))
    about |= {
        "name": cloud.name,
        "classes": list(cloud.classes),
        "palette": [list(map(int, colour)) for colour in cloud.palette],
        "middle": ((low + high) / 2).tolist(),
        "height": float(np.ptp(cloud.points[:, 2])),
        "distance": max(distance, 1e-6) * 0.85,
        "spacing": spacing(cloud.points),
        "azimuth": view.azimuth,
        "elevation": view.elevation,
        "field": FIELD,
        "start": start,
    }
    parts = {"ABOUT": as_json(about), "DATA": base64.b64encode(blob).decode()}
    write_html(path, TEMPLATE, cloud.name, parts)
    return cloud.count
