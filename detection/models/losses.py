"""Losses of published recipes that mmpretrain lacks, by name in configs."""

from __future__ import annotations

from mmengine.registry import MODELS
from timm.loss import BinaryCrossEntropy

# DeiT-III: every class that is in a mixed image counts in full, dict(smoothing=0.0, target_threshold=0.0).
MODELS.register_module(name="TimmBinaryCrossEntropy", module=BinaryCrossEntropy, force=True)
