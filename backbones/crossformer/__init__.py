"""CrossFormer: attention in groups of neighbours and in groups of tokens that stand apart."""

from visionpe.backbones.crossformer import crossformer_models
from visionpe.backbones.crossformer.model import CrossFormer

__all__ = ["CrossFormer", "crossformer_models"]
