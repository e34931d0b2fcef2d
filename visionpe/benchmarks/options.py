"""What the benchmarks can be asked for. Imports nothing heavy."""

from __future__ import annotations

# A ViT-S.
DIM, HEADS, DEPTH, PATCH = 384, 6, 12, 16
LEVELS = ("core", "attention", "block", "model")
PASSES = {"forward": "forward", "backward": "forward and backward"}
# Of visionpe.attend.
KERNELS = ("auto", "sdpa", "low_rank", "flex", "chunked", "small", "math")
BACKBONES = ("swin_t", "vitdet_b", "cswin_t", "cpvt_v2_s")
