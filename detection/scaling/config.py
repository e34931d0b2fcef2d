"""The changes that a row makes to a config of mmdet or mmseg: the scale of its pictures, its crop."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from visionpe.detection.running.kinds import kind_name
from visionpe.scaling.sizes import Resolution, Size, parse_resolution
from visionpe.utils.errors import InputError

SIZES = ("scale", "scales", "size", "max_size", "width", "height")  # of Resize and its like, and of Pad
RESIZES = ("Resize", "FixScaleResize", "FixShapeResize", "ResizeShortestEdge")
STRIDE = Fraction(2, 3)  # of a crop


def pipelines(dataset: Any) -> Iterator[list]:
    """The lists of transforms in the config of a dataset, through wrappers such as ``ConcatDataset``."""
    if isinstance(dataset, dict):
        if isinstance(dataset.get("pipeline"), list):
            yield dataset["pipeline"]
        for key in ("dataset", "datasets"):
            yield from pipelines(dataset.get(key))
    elif isinstance(dataset, (list, tuple)):
        for item in dataset:
            yield from pipelines(item)


def _times(value: Any, factor: float, whole: bool) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_times(item, factor, whole) for item in value)
    return max(1, round(value * factor)) if whole else float(value) * factor


def rescale(config: Any, factor: float, *, back: bool = False) -> None:
    """Multiply the test scale of a config, in place; its own test scale is 1x.

    Sizes, bounds and factors of every ``Resize`` are multiplied, and the size of a ``Pad``. With ``keep_ratio``
    each picture so gets ``factor`` times the height and width that it had.

    Args:
        config: A config with ``test_dataloader``.
        factor: Above 0.
        back: Resize each picture back to its size at 1x afterwards: the ``downscale`` control.

    Raises:
        InputError: If the test pipeline has no ``Resize``.
    """
    found = False
    # Parts of a dataset may share one pipeline, which is to change once.
    for steps in {id(steps): steps for steps in pipelines(config.test_dataloader.dataset)}.values():
        resizes = [i for i, step in enumerate(steps) if kind_name(step) in RESIZES]
        found |= bool(resizes)
        for step in steps:
            if kind_name(step) not in RESIZES and (back or kind_name(step) != "Pad"):
                continue
            for key in SIZES:
                if step.get(key) is not None:
                    step[key] = _times(step[key], factor, True)
            if step.get("scale_factor") is not None:
                given = _times(step["scale_factor"], factor, False)
                step["scale_factor"] = tuple(given) if isinstance(given, list) else given
        if resizes and back:
            steps.insert(resizes[-1] + 1, {"type": "mmengine.ResizeBack", "factor": factor})
    if not found:
        raise InputError(
            f"--config {config.filename}: its test pipeline has no Resize that could be set to {factor:g}x; allowed: "
            f"{', '.join(RESIZES)}"
        )


def trained_crop(config: Any) -> Size | None:
    """What ``--crop 1x`` means: the crop of the config's own test, else the size that its backbone was built for.

    Returns:
        Height and width in pixels; None if the config names neither.
    """
    model = config.model
    for holder, key in ((model.get("test_cfg"), "crop_size"), (model.get("backbone"), "img_size")):
        if holder and holder.get(key):
            size = holder[key]
            return (size, size) if isinstance(size, int) else (size[0], size[1])
    return None


def parse_crop(text: str) -> Resolution:
    """Read one ``--crop``.

    Raises:
        InputError: If it is neither pixels nor a factor.
    """
    try:
        return parse_resolution(text)
    except InputError:
        raise InputError(
            f"--crop {text}: not a size; allowed: pixels (512 or 512x384) or a factor of the trained crop (1x), above 0"
        ) from None


def crop_size(config: Any, crop: Resolution) -> Size:
    """A ``--crop`` in pixels.

    Raises:
        InputError: If it is a factor and the config does not say of what.
    """
    if crop.size is not None:
        return crop.size
    base = trained_crop(config)
    if base is None:
        raise InputError(
            f"--crop {crop.text}: {config.filename} has neither model.test_cfg.crop_size nor model.backbone.img_size; "
            "give pixels (512 or 512x384)"
        )
    assert crop.factor is not None
    return max(1, round(base[0] * crop.factor)), max(1, round(base[1] * crop.factor))


def set_crop(config: Any, size: Size) -> None:
    """Test with crops that slide over the picture in steps of two thirds of their size.

    Args:
        config: A config of mmseg, changed in place.
        size: Height and width of a crop, pixels.
    """
    stride = tuple(max(1, int(side * STRIDE)) for side in size)
    config.model.test_cfg = {**(config.model.get("test_cfg") or {}), "mode": "slide"}
    config.model.test_cfg.update(crop_size=tuple(size), stride=stride)
