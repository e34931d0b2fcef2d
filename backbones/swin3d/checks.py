"""What Swin3D refuses: settings of its levels, encodings that need a full grid, voxels that it cannot read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionpe.encodings.bias.crse import COLUMNS
from visionpe.registry import Spec, encoding_classes
from visionpe.sparse import Voxels


def check_levels(**settings: Sequence[Any]) -> None:
    """Refuse settings of the levels that differ in number.

    Raises:
        ValueError: Gives all of them.
    """
    if len({len(values) for values in settings.values()}) > 1 or not settings["depths"]:
        given = ", ".join(f"{name}={tuple(values)}" for name, values in settings.items())
        raise ValueError(f"{given}: one entry a level is needed in each")


def check_positive(**settings: int) -> None:
    """Refuse what is not positive.

    Raises:
        ValueError: Names the setting.
    """
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be positive")


def check_irregular(spec: Spec, family: str) -> None:
    """Refuse encodings that cannot read real coordinates, before anything is built.

    Raises:
        ValueError: Names the encoding.
    """
    for part in encoding_classes(spec):
        if not part.irregular:
            raise ValueError(
                f"pos_encoding={spec!r}: {part.name!r} needs tokens that fill a grid; the tokens of {family} are "
                "sparse voxels at real coordinates"
            )


def check_voxels(x: Any, in_chans: int, signals: Sequence[str]) -> Voxels:
    """Voxels that a model can take.

    Args:
        x: :class:`~visionpe.sparse.Voxels`, or a tuple ``(features, coords, signals)``.
        in_chans: Columns of the features.
        signals: What is read, of XYZ, RGB and NORM.

    Raises:
        ValueError: If they are none (see :meth:`visionpe.sparse.Voxels.checked`), have other features, or lack a
            signal.
    """
    voxels = Voxels.of(x).checked()
    if voxels.axes != 3:
        raise ValueError(f"coords must be (N, 4): cloud, x, y, z; got {tuple(voxels.coords.shape)}")
    if voxels.features.shape[1] != in_chans:
        raise ValueError(f"features has {voxels.features.shape[1]} columns; allowed: in_chans={in_chans}")
    needed = 3 + max((COLUMNS[name].stop for name in signals if name in COLUMNS), default=0)
    if voxels.signals.shape[1] < needed:
        raise ValueError(
            f"signals has {voxels.signals.shape[1]} columns; a model of {'_'.join(signals)} reads {needed}: position, "
            "colour, then normal"
        )
    return voxels
