"""Resolution policies: what becomes of tables, coordinates, frequencies and logits at a size that was not trained.

All are pure functions, the identity at the trained size, and work on each axis by its own ratio.
"""

from visionpe.policy.functions.convolutions import CONVOLUTION_POLICIES, convolve, stretch, stretched_kernel
from visionpe.policy.functions.frequencies import ntk, resonance, riflex, yarn, yarn_temperature
from visionpe.policy.functions.logits import decayed, log_temperature
from visionpe.policy.functions.offsets import READ_POLICIES, resize_offset_table
from visionpe.policy.functions.patches import resize_patch
from visionpe.policy.functions.positions import (
    OFFSET_POLICIES,
    POSITION_POLICIES,
    effective_length,
    is_trained_size,
    rescale_positions,
)
from visionpe.policy.functions.spectrum import resize_fourier
from visionpe.policy.functions.tables import (
    ABSOLUTE_POLICIES,
    TABLE_POLICIES,
    resize_map,
    resize_table,
    resize_window_aware,
    sample_table,
)
from visionpe.policy.functions.windows import tiled, window_part

__all__ = [
    "ABSOLUTE_POLICIES",
    "CONVOLUTION_POLICIES",
    "OFFSET_POLICIES",
    "POSITION_POLICIES",
    "READ_POLICIES",
    "TABLE_POLICIES",
    "convolve",
    "decayed",
    "effective_length",
    "is_trained_size",
    "log_temperature",
    "ntk",
    "rescale_positions",
    "resize_fourier",
    "resize_map",
    "resize_offset_table",
    "resize_patch",
    "resize_table",
    "resize_window_aware",
    "resonance",
    "riflex",
    "sample_table",
    "stretch",
    "stretched_kernel",
    "tiled",
    "window_part",
    "yarn",
    "yarn_temperature",
]
