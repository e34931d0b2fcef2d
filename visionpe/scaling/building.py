"""Building a model so that it takes every size: adapted, or as free as timm makes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import visionpe.backbones  # noqa: F401  registers the models with timm
from visionpe.backbones.adapt.adapting import adapt_or_say
from visionpe.utils.timm_models import create_model

# Keywords by which timm lets go of the size, in some families.
FREE: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}, {}]


def build_model(name: str, checkpoint: Path | None, kwargs: dict[str, Any], seed: int) -> tuple[nn.Module, str]:
    """A model in evaluation mode, and why it runs as timm built it where it could not be adapted.

    Args:
        name: As timm registers it.
        checkpoint: File with weights, or None.
        kwargs: For ``timm.create_model``.
        seed: Of random weights.
    """
    if timm.models.model_entrypoint(name).__module__.startswith("visionpe"):
        return _create(name, checkpoint, kwargs, seed, [{}]), ""
    model, why_not = adapt_or_say(_create(name, checkpoint, kwargs, seed, [{}]))
    return (_create(name, checkpoint, kwargs, seed, FREE), why_not) if why_not else (model, "")


def _create(
    name: str, checkpoint: Path | None, kwargs: dict[str, Any], seed: int, variants: Sequence[dict[str, Any]]
) -> nn.Module:
    """With the first of some further keywords that the model takes."""
    for variant in variants:
        torch.manual_seed(seed)
        try:
            return create_model(name, checkpoint, **{**variant, **kwargs}).eval()
        except TypeError as error:
            if not any(key in str(error) for key in variant):
                raise
    raise AssertionError("the last variant has no keyword to refuse")
