"""What timm's rotary modules are called here, and those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import (
    RotaryEmbedding,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    RotaryEmbeddingMRope,
)
from torch import nn

from visionpe.backbones.adapt.rotary import rotary_spec


class Own(RotaryEmbeddingCat):
    """Somebody's own class may do anything."""


MOVES = {"shift_coords": 0.5, "jitter_coords": 1.5, "rescale_coords": 2.0}
SAID: list[tuple[nn.Module, bool, dict[str, Any], str, tuple[int, int]]] = [
    (
        RotaryEmbeddingCat(16, in_pixels=False, feat_shape=[4, 5], temperature=50.0, grid_indexing="xy"),
        False,
        {"name": "rope_axial", "theta": 50.0, "grid_indexing": "xy", "layout": "adjacent"},
        "extrapolate",
        (4, 5),
    ),
    (
        RotaryEmbedding(16, in_pixels=False, ref_feat_shape=[3, 4], grid_offset=1.0, rotate_half=True, **MOVES),
        True,
        {
            "name": "rope_axial",
            "theta": 10000.0,
            "grid_indexing": "ij",
            "layout": "half",
            **MOVES,
            "grid_offset": 1.0,
            "ref_feat_shape": (3, 4),
        },
        "interpolate",
        (3, 4),
    ),
    (
        RotaryEmbeddingDinoV3(16, feat_shape=[6, 6], normalize_coords="max", **MOVES),
        True,
        {
            "name": "rope_norm",
            "base": 100.0,
            "grid_indexing": "ij",
            "normalize_coords": "max",
            "layout": "half",
            **MOVES,
        },
        "interpolate",
        (6, 6),
    ),
    (
        RotaryEmbeddingMRope(16, mrope_section=(2, 3, 2)),
        True,
        {
            "name": "rope_axial",
            "theta": 10000.0,
            "grid_indexing": "ij",
            "layout": "half",
            "mrope_section": (2, 3, 2),
        },
        "extrapolate",
        (7, 7),
    ),
]


@pytest.mark.parametrize(("module", "half", "spec", "policy", "size"), SAID)
def test_what_it_is_called(
    module: nn.Module, half: bool, spec: dict[str, Any], policy: str, size: tuple[int, int]
) -> None:
    given = 7 if isinstance(module, RotaryEmbeddingMRope) else None
    said = rotary_spec(module, rotate_half=half, grid_size=given)
    assert (said.spec, said.policy, said.grid_size, said.tensors) == (spec, policy, size, {})
    assert rotary_spec(module, rotate_half=half, grid_size=(9, 8)).grid_size == (9, 8)


def test_learned_frequencies_go_by_the_column_first() -> None:
    for indexing, axis in (("xy", 0), ("ij", 1)):
        module = RotaryEmbeddingMixed(16, depth=3, num_heads=1, feat_shape=[4, 5], grid_indexing=indexing)
        said = rotary_spec(module, rotate_half=False)
        assert said.spec == {"name": "rope_mixed", "theta": 10.0, "layout": "adjacent"}
        assert torch.equal(said.tensors["freqs"][0], module.freqs[axis])
        assert not said.tensors["freqs"].requires_grad


def cat(**options: Any) -> nn.Module:
    return RotaryEmbeddingCat(16, **{"in_pixels": False, "feat_shape": [4, 4], **options})


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (nn.Linear(2, 2), {}, "module='Linear' is no rotary module that is known here; allowed: RotaryEmbedding, "),
        (Own(16, in_pixels=False), {}, "module='Own' is no rotary module"),
        (cat(in_pixels=True), {}, r"RotaryEmbeddingCat\(grid_type='pixel'\) is not known here; allowed: 'index'"),
        (cat(grid_type="centered"), {}, r"RotaryEmbeddingCat\(grid_type='centered'\) is not known"),
        (cat(in_pixels=True, grid_type="index"), {}, r"RotaryEmbeddingCat\(in_pixels=True\) is not known"),
        (cat(rotate_half=True), {}, "rotate_half=False: RotaryEmbeddingCat is laid out for rotate_half=True"),
        (RotaryEmbeddingMRope(16), {"grid_size": 4}, "rotate_half=False: .*; allowed: True"),
        (RotaryEmbeddingMixed(16, 1, 1), {"rotate_half": True, "grid_size": 4}, "rotate_half=True: .*; allowed: False"),
        (cat(feat_shape=None), {}, r"grid_size=None: RotaryEmbeddingCat knows no trained size; allowed: \(height, wi"),
        (cat(), {"grid_size": (0, 4)}, r"grid_size=\(0, 4\) is no size"),
    ],
)
def test_refusals(module: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotary_spec(module, **{"rotate_half": False, **options})
