"""Adapted Twins are timm's."""

from __future__ import annotations

from typing import Any

import pytest
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, original
from adapted_pyramids import (
    check_compiled,
    check_copies,
    check_exported,
    check_features,
    check_methods,
    check_precision,
    check_training,
)

import visionpe

SMALL: dict[str, Any] = {
    "embed_dims": (16, 32, 48, 64),
    "num_heads": (1, 2, 3, 4),
    "depths": (2, 2, 3, 1),
    "mlp_ratios": (2, 2, 2, 2),
    "img_size": 64,
}
CASES: dict[str, dict[str, Any]] = {
    "twins_pcpvt_small": SMALL,
    "twins_svt_small": {**SMALL, "wss": (5, 4, 3, 2)},
}
SIZES = [(64, 64), (96, 160), (72, 100), (16, 24)]


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str) -> None:
    keywords = CASES[name]
    model = original(name, keywords)
    adapted = visionpe.adapt(model)
    for size in SIZES[:2]:
        check_parity(model, adapted, size)
        assert difference(model, adapted, size) <= 1e-5
    check_sizes(adapted, [*SIZES, (320, 480)])
    check_swaps(model, [SIZES[0], SIZES[3]])
    check_files(name, keywords, SIZES[0])


@pytest.mark.parametrize("name", CASES)
def test_what_timm_does_with_models(name: str) -> None:
    model = original(name, CASES[name])
    adapted = visionpe.adapt(model)
    check_methods(adapted, SIZES[0])
    check_features(name, CASES[name], [(64, 64), (96, 160)])
    check_copies(adapted, SIZES[:2])
    check_training(adapted, SIZES[2])
    check_precision(model, adapted, SIZES[0])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_compile_and_export() -> None:
    one = {**CASES["twins_svt_small"], "depths": (2, 1, 1, 1)}
    adapted = visionpe.adapt(original("twins_svt_small", one))
    check_compiled(adapted, SIZES[:1])
    check_exported(adapted, SIZES[1:3])
