"""What the tests of mmcv's stand-in share."""

import sys

import pytest
import torch

import visionpe.detection  # noqa: F401  puts the stand-in in place
from visionpe.detection.operators.extension import NAME, StandIn

HALVES = [torch.float16, torch.bfloat16]
needs_stand_in = pytest.mark.skipif(not isinstance(sys.modules[NAME], StandIn), reason="a compiled mmcv is in use")
on_every_device = pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])


def double(*shape, device="cpu"):
    return torch.randn(*shape, dtype=torch.float64, device=device, requires_grad=True)


def tolerance(dtype):
    return {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
