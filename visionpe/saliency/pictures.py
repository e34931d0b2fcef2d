"""The pictures of the saliency study: IoU against the size, and maps at several sizes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionpe.saliency.cutouts import CutOut
from visionpe.saliency.measuring import normalised
from visionpe.saliency.model import SaliencyModel
from visionpe.saliency.results import Row, intervals
from visionpe.scaling.options import AUTO, DEFAULT, DOWNSCALE
from visionpe.scaling.plot import CONTROL_STYLES
from visionpe.scaling.sweep import OK
from visionpe.utils.errors import InputError
from visionpe.utils.pictures import open_picture
from visionpe.utils.resizing import resize_images
from visionpe.viewing.figures import COLOURS, MARKERS, STYLES, new_figure, save_png

SHOWN = (112, 224, 448, 896)
# Photographs that come with scikit-image, free of rights.
SHIPPED = ("chelsea", "rocket", "coffee")
MAIN: dict[str, tuple[str, Any]] = {
    DEFAULT: ("black", "-"),
    AUTO: ("#CC0000", "--"),
    DOWNSCALE: ("0.45", CONTROL_STYLES[DOWNSCALE]),
}


def _axis(panel: Any, sizes: Sequence[int], title: str) -> None:
    panel.set_title(title, fontsize=11)
    panel.set_xscale("log")
    panel.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    panel.minorticks_off()
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.axvline(224, color="0.6", linewidth=0.8, zorder=0)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def draw_curves(path: Path, lines: Sequence[Row]) -> None:
    """Write a PNG, all of it differences on the same pictures, since fewer are measured at large sizes.

    On the left the default policy, ``auto`` and ``downscale`` less the default policy at 224, on the right every policy
    less the default policy at the same size.

    Args:
        path: The file.
        lines: From :func:`visionpe.saliency.study.summarise`.
    """
    good = [line for line in lines if line["status"] == OK]
    sizes = sorted({line["height"] for line in good})
    of = {(line["policy"], line["height"]): line for line in good}
    figure = new_figure(11.5, 4.6)
    left, right = figure.subplots(1, 2)
    for name, (colour, style) in MAIN.items():
        points = [of[name, size] for size in sizes if "gain" in of.get((name, size), ())]
        if points:
            x = [point["height"] for point in points]
            left.plot(x, [p["gain"] for p in points], color=colour, linestyle=style, linewidth=1.8, label=name)
            low, high = [p["gain_low"] for p in points], [p["gain_high"] for p in points]
            left.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
    _axis(left, sizes, "points of IoU over the default policy at 224, same pictures")
    if left.lines:
        left.legend(loc="upper left", frameon=False, fontsize=9)
    others = [name for name in dict.fromkeys(line["policy"] for line in good) if name not in (DEFAULT, DOWNSCALE)]
    for i, name in enumerate(others):
        x = [size for size in sizes if {(name, size), (DEFAULT, size)} <= of.keys()]
        y = [of[name, size]["iou"] - of[DEFAULT, size]["iou"] for size in x]
        look: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": STYLES[i // len(COLOURS) % len(STYLES)],
        }
        if name == AUTO:
            look = dict(zip(("color", "linestyle"), MAIN[AUTO]), zorder=3)
        right.plot(x, y, marker=MARKERS[i % len(MARKERS)], markersize=4, linewidth=1.4, label=name, **look)
    right.axhline(0, color="black", linewidth=1)
    # A policy that fails by far would flatten all others.
    right.set_yscale("symlog", linthresh=2)
    right.set_yticks(
        ticks := [-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20], [f"{tick:+d}" if tick else "0" for tick in ticks]
    )
    drawn = [y for line in right.lines for y in line.get_ydata()]
    right.set_ylim(1.5 * min(drawn) - 0.3, 1.5 * max(drawn) + 0.3)
    _axis(right, sizes, "points of IoU over the default policy at that size")
    if others:
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    figure.supxlabel(f"side of the image, pixels (fine-tuned at 224). Bands: {intervals(good)}.", fontsize=9)
    save_png(path, figure, 140)


@torch.inference_mode()
def _maps(model: SaliencyModel, image: Tensor, device: torch.device) -> list[np.ndarray]:
    """Maps of a square image ``(3, side, side)`` at each size of :data:`SHOWN`."""
    shown = [normalised(resize_images(image[None], (side, side)).clamp(0, 1)) for side in SHOWN]
    return [model(each.to(device))[0, 0].cpu().numpy() for each in shown]


def draw_maps(
    path: Path, model: SaliencyModel, images: Sequence[Tensor], *, masks: Sequence[Tensor] = (), device: torch.device
) -> None:
    """Write a PNG of images, what stands out in them where that is known, and their maps at several sizes.

    Args:
        path: The file.
        model: Under the policy that is shown.
        images: Square, ``(3, side, side)``, 0 to 1.
        masks: ``(side, side)``, one for each image, or none.
        device: Where the model is.
    """
    titles = ["image", *(["object"] if masks else []), *(f"map at {side}" for side in SHOWN)]
    figure = new_figure(2.1 * len(titles), 2.1 * len(images) + 0.3)
    panels = figure.subplots(len(images), len(titles), squeeze=False)
    for row, image in enumerate(images):
        line = [image.permute(1, 2, 0).numpy(), *([masks[row].float().numpy()] if masks else [])]
        for panel, shown, title in zip(panels[row], [*line, *_maps(model, image, device)], titles):
            panel.imshow(shown, cmap="gray", vmin=0, vmax=1)
            panel.set_axis_off()
            if not row:
                panel.set_title(title, fontsize=10)
    save_png(path, figure, 110)


def draw_cutouts(path: Path, model: SaliencyModel, pictures: Sequence[CutOut], *, device: torch.device) -> None:
    """Write a PNG of measured pictures with their masks and maps."""
    masks = [picture.mask for picture in pictures]
    draw_maps(path, model, [picture.image for picture in pictures], masks=masks, device=device)


def _square(picture: np.ndarray) -> Tensor:
    """The middle of a picture ``(h, w, 3)``, 0 to 255, as ``(3, side, side)``, 0 to 1."""
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    cut = np.ascontiguousarray(picture[top : top + side, left : left + side])
    return torch.from_numpy(cut).permute(2, 0, 1).float() / 255


def draw_photographs(path: Path, model: SaliencyModel, files: Sequence[Path], *, device: torch.device) -> None:
    """Write a PNG of photographs with their maps; without files, of some that scikit-image ships.

    Raises:
        InputError: If a file cannot be read, or scikit-image is not installed.
    """
    if files:
        photographs = [np.array(open_picture(file)) for file in files]
    else:
        try:
            from skimage import data
        except ImportError:
            raise InputError("without --picture, scikit-image is needed: pip install 'visionpe[data]'") from None
        photographs = [getattr(data, name)() for name in SHIPPED]
    draw_maps(path, model, [_square(photograph) for photograph in photographs], device=device)
