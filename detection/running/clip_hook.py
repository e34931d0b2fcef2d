"""Gradients clipped by the norms of what they change, as LeViT is trained."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from timm.utils.agc import adaptive_clip_grad
from torch.optim import Optimizer

from visionpe.checks import check_number


@HOOKS.register_module()
class AdaptiveClipHook(Hook):
    """Shrink, before each step, the gradient of every output of a layer whose norm is too large for its weights.

    "High-Performance Large-Scale Image Recognition Without Normalization", arXiv 2102.06171, section 4, equation 3.

    Args:
        factor: Largest norm of a gradient over that of the weights, 1e-6 to 1e6; weights count as 1e-3 at least.

    Raises:
        TypeError, ValueError: If ``factor`` is no such number.
    """

    def __init__(self, factor: float = 0.01) -> None:
        self.factor = check_number("factor", factor, 1e-6, 1e6)

    def before_train(self, runner: Runner) -> None:
        """Follow the steps of the optimizer, whatever wrapper makes them."""
        runner.optim_wrapper.optimizer.register_step_pre_hook(self._clip)

    def _clip(self, optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            adaptive_clip_grad(group["params"], clip_factor=self.factor)
