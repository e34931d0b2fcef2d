"""Adapted models with tables of offsets are timm's: BEiT, and ViTs with relative positions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from adapted_models import check_plain, original

import visionpe

SMALL: dict[str, Any] = {"embed_dim": 96, "num_heads": 3, "depth": 2, "img_size": 96}
CASES: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": SMALL,
    "beitv2_base_patch16_224": {**SMALL, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    "vit_relpos_medium_patch16_224": SMALL,
    "vit_relpos_small_patch16_224": {**SMALL, "rel_pos_type": "mlp-swin", "class_token": True},
    "vit_srelpos_medium_patch16_224": SMALL,
    "vit_relpos_medium_patch16_cls_224": {**SMALL, "rel_pos_type": "bias"},
    "vit_relpos_medium_patch16_rpn_224": SMALL,
    "vit_srelpos_small_patch16_224": {**SMALL, "rel_pos_type": "bias", "shared_rel_pos": True},
}


def resized(model: Any, size: tuple[int, int]) -> Any:
    """timm's model with its tables resized for another size."""
    other = copy.deepcopy(model)
    other.set_input_size(img_size=size)
    return other


@pytest.mark.parametrize("name", CASES)
def test_family(name: str) -> None:
    check_plain(name, CASES[name], 16, resized=resized)


def test_exported_at_the_trained_size_and_at_another() -> None:
    """One size a graph: distances between entries follow from it."""
    adapted = visionpe.adapt(original("beit_base_patch16_224", SMALL))
    for size in ((96, 96), (128, 80)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            graph = torch.export.export(adapted, (images,)).module()
            torch.testing.assert_close(graph(images), adapted(images), atol=1e-5, rtol=1e-5)


def test_two_kinds_of_tables_are_refused() -> None:
    model = original("beit_base_patch16_224", {**SMALL, "use_shared_rel_pos_bias": True})
    with pytest.raises(ValueError, match="for all blocks and one for each"):
        visionpe.adapt(model)
