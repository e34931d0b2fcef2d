"""Attention with structured biases: ``attend`` picks the fastest exact kernel for the bias at hand.

``bias`` and ``buckets`` hold the kinds of bias, ``signals`` the bias of cRSE with the attention it needs, ``dispatch``
chooses among ``kernels``, ``flex`` and ``axial``, and ``logits`` is what resolution policies do to all logits.
"""

from visionpe.attention.bias import Bias, DenseBias, LowRankBias, OffsetBias
from visionpe.attention.buckets import BucketBias
from visionpe.attention.dispatch import AttentionWeights, Kernel, attend

__all__ = ["AttentionWeights", "Bias", "BucketBias", "DenseBias", "Kernel", "LowRankBias", "OffsetBias", "attend"]
