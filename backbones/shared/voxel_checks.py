"""What backbones on voxels refuse: levels, encodings that need a full grid, voxels that they cannot read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionpe.backbones.shared.arguments import (
    MAX_DIM,
    MAX_STAGES,
    MAX_WINDOW,
    Check,
    check_arguments,
    check_blocks,
    counts,
)
from visionpe.checks import check_choice, check_counts, check_flag, shown
from visionpe.composition import refuse_carrying
from visionpe.encodings.bias.crse import COLUMNS
from visionpe.ranges import MAX_DEPTH, MAX_SIDE
from visionpe.registry import Spec, encoding_classes
from visionpe.sparse import Voxels

# Setting of a level -> its largest value.
LARGEST = {
    "embed_dims": MAX_DIM,
    "depths": MAX_DEPTH,
    "num_heads": MAX_DIM,
    "window_size": MAX_WINDOW,
    "patch_size": 2**16,
}
CHECKS: dict[str, Check] = {
    "first_down_stride": counts(1, 64),
    "down_k": counts(1, 1024),
    "up_k": counts(1, 1024),
    "cloud_size": counts(1, MAX_SIDE),
    "curve_margin": counts(0, 8),
    "decoder_attn": check_flag,
    "shuffle_orders": check_flag,
    "equal_patches": check_flag,
    "form": lambda name, value: check_choice(name, value, ("conv", "linear")),
    "global_pool": lambda name, value: check_choice(name, value, ("avg", "")),
}


def check_settings(**given: Any) -> None:
    """Refuse keywords out of range.

    Raises:
        TypeError, ValueError: Names the keyword, what was given and what is allowed.
    """
    check_arguments(given)
    for name, value in given.items():
        if name in CHECKS:
            CHECKS[name](name, value)


def one_a_level(value: Any, depths: Any) -> Any:
    """A number as that of every level; anything else as it is, for :func:`check_levels` to judge."""
    one = isinstance(value, int) and not isinstance(value, bool) and hasattr(depths, "__len__")
    return [value] * len(depths) if one else value


def check_levels(first: int, mlp_ratio: float, **settings: Any) -> list[tuple[int, ...]]:
    """Settings of the levels: as many of each.

    Args:
        first: The first level that has attention; what those before it say of blocks and windows is not read.
        mlp_ratio: Width of the MLPs over that of the tokens.
        settings: ``embed_dims depths num_heads``, and ``window_size`` or ``patch_size``.

    Returns:
        They as tuples, in the order given.

    Raises:
        TypeError: If one is no sequence of numbers.
        ValueError: If they differ in number (gives all of them), or one is out of range.
    """
    levels = {name: check_counts(name, values, None, 0, LARGEST[name]) for name, values in settings.items()}
    if len({len(values) for values in levels.values()}) > 1:
        given = ", ".join(f"{name}={shown(values)}" for name, values in levels.items())
        raise ValueError(f"{given}: one entry a level is needed in each")
    if len(levels["depths"]) <= first or len(levels["depths"]) > MAX_STAGES:
        raise ValueError(f"depths={levels['depths']}: allowed are {first + 1} to {MAX_STAGES} levels")
    for name, values in levels.items():
        if min(values if name == "embed_dims" else values[first:]) < 1:
            raise ValueError(f"{name}={shown(values)} must be positive; allowed: 1 to {LARGEST[name]}")
    for i, (dim, heads) in enumerate(zip(levels["embed_dims"], levels["num_heads"])):
        if i >= first and dim % heads:
            raise ValueError(f"num_heads={heads} of level {i} must divide its width, {dim}")
    check_blocks(levels["embed_dims"], levels["depths"], mlp_ratio, "embed_dims")
    return list(levels.values())


def check_irregular(spec: Spec, family: str) -> None:
    """Refuse encodings that cannot read real coordinates, before anything is built.

    Raises:
        ValueError: Names the encoding.
    """
    parts = encoding_classes(spec)
    refuse_carrying(parts)
    for part in parts:
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
    if not voxels.features.is_floating_point():
        raise TypeError(f"features are {voxels.features.dtype}; allowed: floating point")
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
