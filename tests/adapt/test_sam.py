"""The adapted image encoder of Segment Anything is timm's."""

from __future__ import annotations

from typing import Any

import pytest
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, original
from adapted_pyramids import (
    check_compiled,
    check_copies,
    check_exported,
    check_frozen,
    check_methods,
    check_precision,
    check_training,
)

import visionpe

SMALL: dict[str, Any] = {"embed_dim": 96, "num_heads": 3, "depth": 4, "img_size": 96, "window_size": 4}
KEYWORDS = {**SMALL, "global_attn_indexes": (1, 3), "num_classes": 5}
# Trained, of windows that do not fit, and less than one window.
SIZES = [(96, 96), (80, 112), (320, 480), (32, 48)]


@pytest.mark.parametrize("name", ["samvit_base_patch16", "samvit_base_patch16_224"])
def test_parity_at_every_size(name: str) -> None:
    model = original(name, KEYWORDS)
    adapted = visionpe.adapt(model)
    check_parity(model, adapted, SIZES[0])
    for size in SIZES:
        assert difference(model, adapted, size) <= 1e-5  # timm resizes every table itself
    check_sizes(adapted, SIZES)
    check_swaps(model, [SIZES[0], SIZES[3]])
    check_files(name, KEYWORDS, SIZES[0])


def test_what_timm_does_with_models() -> None:
    model = original("samvit_base_patch16", KEYWORDS)
    adapted = visionpe.adapt(model)
    check_methods(adapted, SIZES[0])
    check_copies(adapted, SIZES[:2])
    check_training(adapted, SIZES[1])
    check_frozen("samvit_base_patch16", KEYWORDS)
    check_precision(model, adapted, SIZES[0])


@pytest.mark.long
def test_compiled_and_exported() -> None:
    adapted = visionpe.adapt(original("samvit_base_patch16", KEYWORDS))
    check_compiled(adapted, SIZES[:2])
    check_exported(adapted, [SIZES[1], SIZES[0], SIZES[3]])


def test_rotary_positions_are_refused_and_replaced() -> None:
    keywords = {**KEYWORDS, "use_rel_pos": False, "use_rope": True}
    model = original("samvit_base_patch16", keywords)
    with pytest.raises(ValueError, match="use_rope"):
        visionpe.adapt(model)
    assert visionpe.adapt(model, pos_encoding="rope_axial")
