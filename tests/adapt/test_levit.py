"""Adapted LeViTs are timm's."""

from __future__ import annotations

from typing import Any

import pytest
from adapted_models import check_files, check_parity, check_sizes, original
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

# Maps of 7 x 7, 4 x 4 and 2 x 2 tokens: of odd sides every second token is one more than half.
SMALL: dict[str, Any] = {
    "embed_dim": (32, 48, 64),
    "key_dim": 8,
    "num_heads": (2, 3, 4),
    "depth": (2, 1, 1),
    "img_size": 112,
}
CASES: dict[str, dict[str, Any]] = {
    "levit_128s": SMALL,  # distilled
    "levit_conv_128s": SMALL,
    "levit_512": {**SMALL, "img_size": (96, 176), "attn_ratio": (2, 1, 3)},
    "levit_conv_512_s8": {**SMALL, "img_size": (40, 72)},
}
BOTH = ["levit_128s", "levit_conv_128s"]
SIZES = [(112, 112), (150, 90), (20, 12), (8, 100), (320, 480)]


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str) -> None:
    keywords = CASES[name]
    model, size = original(name, keywords), keywords["img_size"]
    size = size if isinstance(size, tuple) else (size, size)
    adapted = visionpe.adapt(model)
    check_parity(model, adapted, size)
    check_sizes(adapted, [size, *SIZES[1:]])
    check_files(name, keywords, size)
    check_copies(adapted, [size, SIZES[1]])


@pytest.mark.parametrize("name", BOTH)
def test_what_timm_does_with_models(name: str) -> None:
    model = original(name, CASES[name])
    adapted = visionpe.adapt(model)
    check_methods(adapted, SIZES[0])
    check_features(name, CASES[name], SIZES[:2])
    check_training(adapted, SIZES[1])
    check_precision(model, adapted, SIZES[0])
    check_frozen_tables(name)


def check_frozen_tables(name: str) -> None:
    model = original(name, CASES[name]).requires_grad_(False)
    assert not [n for n, p in visionpe.adapt(model).named_parameters() if p.requires_grad]


@pytest.mark.parametrize("name", BOTH)
def test_graphs(name: str) -> None:
    adapted = visionpe.adapt(original(name, CASES[name]))
    check_compiled(adapted, SIZES[:1])
    check_exported(adapted, [(150, 90), (320, 480), (112, 112)])
