"""timm's rotary modules, said in our words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from timm.layers.pos_embed_sincos import (
    RotaryEmbedding,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    RotaryEmbeddingMRope,
)
from torch import Tensor, nn

from visionpe.checks import check_flag, check_pair, shown

AUGMENTATIONS = ("shift_coords", "jitter_coords", "rescale_coords")


@dataclass(frozen=True, kw_only=True)
class RotarySpec:
    """An encoding that rotates queries and keys as a module of timm's does.

    Attributes:
        spec: Name and options, as :func:`~visionpe.create_encoding` takes them.
        policy: With which it equals timm at every other size.
        grid_size: Tokens per axis, rows first, at which it is to be built.
        tensors: What to copy into its state, by our names.
    """

    spec: dict[str, Any]
    policy: str
    grid_size: tuple[int, int]
    tensors: dict[str, Tensor] = field(default_factory=dict)


def rotary_spec(module: nn.Module, *, rotate_half: bool, grid_size: int | Sequence[int] | None = None) -> RotarySpec:
    """The encoding of ours that does what a rotary module of timm's does.

    Args:
        module: Of ``timm.layers``: ``RotaryEmbedding``, ``-Cat``, ``-Mixed``, ``-DinoV3`` or ``-MRope``.
        rotate_half: Of the attention that it is used in: its layout of channel pairs.
        grid_size: Tokens per axis in training. Default: what the module was built for (``feat_shape``), else the
            size it refers to (``ref_feat_shape``).

    Raises:
        ValueError: If the class is not known, the module does what no encoding here does, it is laid out for other
            channel pairs than the attention turns, or no trained size is known.
    """
    half = check_flag("rotate_half", rotate_half)
    kind = type(module)
    if kind not in _KNOWN:
        raise ValueError(
            f"module={shown(kind.__name__)} is no rotary module that is known here; allowed: "
            + ", ".join(known.__name__ for known in _KNOWN)
        )
    laid_out = _layout_of(module)
    if laid_out != half:
        raise ValueError(
            f"rotate_half={rotate_half}: {kind.__name__} is laid out for rotate_half={laid_out}, so that the channels "
            f"of a pair would turn by different angles; allowed: {laid_out}"
        )
    spec, policy, tensors = _KNOWN[kind](module)
    size = grid_size or getattr(module, "feat_shape", None) or getattr(module, "ref_feat_shape", None)
    if size is None:
        raise ValueError(f"grid_size=None: {kind.__name__} knows no trained size; allowed: (height, width) in tokens")
    spec |= {"layout": "half" if half else "adjacent"}
    return RotarySpec(spec=spec, policy=policy, grid_size=check_pair("grid_size", size), tensors=tensors)


def _layout_of(module: Any) -> bool:
    """Whether its table is for half-split pairs; two classes have one layout alone."""
    if isinstance(module, RotaryEmbeddingMixed):
        return False
    return isinstance(module, RotaryEmbeddingMRope) or module.rotate_half


_Said = tuple[dict[str, Any], str, dict[str, Tensor]]


def _refuse(module: nn.Module, option: str, allowed: str) -> None:
    value = shown(getattr(module, option))
    raise ValueError(f"module: {type(module).__name__}({option}={value}) is not known here; allowed: {allowed}")


def _augmentations(module: Any) -> dict[str, Any]:
    return {name: value for name in AUGMENTATIONS if (value := getattr(module, name)) is not None}


def _axial(module: Any) -> _Said:
    if module.grid_type != "index":
        _refuse(module, "grid_type", "'index', which is in_pixels=False")
    if module.in_pixels:
        _refuse(module, "in_pixels", "False")
    spec = {"name": "rope_axial", "theta": float(module.temperature), "grid_indexing": module.grid_indexing}
    if module.grid_offset:
        spec["grid_offset"] = module.grid_offset
    spec |= _augmentations(module)
    if module.ref_feat_shape is None:
        return spec, "extrapolate", {}
    spec["ref_feat_shape"] = check_pair("ref_feat_shape", module.ref_feat_shape)
    return spec, "interpolate", {}


def _mixed(module: Any) -> _Said:
    freqs = module.freqs.detach()  # those of the first coordinate first
    spec = {"name": "rope_mixed", "theta": float(module.temperature), **_augmentations(module)}
    return spec, "extrapolate", {"freqs": freqs if module.grid_indexing == "xy" else freqs.flip(0)}


def _dinov3(module: Any) -> _Said:
    spec = {"name": "rope_norm", "grid_indexing": module.grid_indexing, "normalize_coords": module.normalize_coords}
    if module.min_period is not None and module.max_period is not None:
        spec |= {"min_period": module.min_period, "max_period": module.max_period}
    else:
        spec["base"] = module.temperature
    if module.grid_offset:
        spec["grid_offset"] = module.grid_offset
    return spec | _augmentations(module), "interpolate", {}


def _mrope(module: Any) -> _Said:
    sections = tuple(module.mrope_section)
    spec = {"name": "rope_axial", "theta": float(module.temperature), "grid_indexing": "ij", "mrope_section": sections}
    return spec | _augmentations(module), "extrapolate", {}


_KNOWN: dict[type[nn.Module], Callable[[Any], _Said]] = {
    RotaryEmbedding: _axial,
    RotaryEmbeddingCat: _axial,
    RotaryEmbeddingMixed: _mixed,
    RotaryEmbeddingDinoV3: _dinov3,
    RotaryEmbeddingMRope: _mrope,
}
