"""The policy ``downscale`` for models whose first module knows nothing of policies."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from visionpe.policy.functions.terms import refuse_export
from visionpe.policy.grammar import PolicyTerm
from visionpe.policy.holder import HasPolicy
from visionpe.policy.sizes import Size
from visionpe.utils.resizing import resize_images

NAME = "images"


class ImagesAtTrainedSize(HasPolicy, nn.Module):
    """Under ``downscale``, images resized to the trained size (antialiased bicubic); else images as they are.

    Args:
        size: Height and width, pixels.
    """

    name = NAME
    modifiers: ClassVar[tuple[str, ...]] = ("downscale",)

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.policy = None
        self.mark_as_built()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)``, resized or not; what is no such batch goes on to the module that says so."""
        if not self._terms or x.ndim != 4:
            return x
        refuse_export(PolicyTerm("downscale"), ("none, with images that were resized",))
        return resize_images(x, self.size)


def _first(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return module.get_submodule(NAME)(args[0]), *args[1:]


def put_before(module: nn.Module, size: Size) -> None:
    """Let the module that sees the images first get them so.

    Args:
        module: Changed in place: it holds what has the policy, and no further parameters.
        size: At which the model was trained, pixels.
    """
    module.add_module(NAME, ImagesAtTrainedSize(size))
    module.register_forward_pre_hook(_first)


def is_behind(module: nn.Module) -> bool:
    """Whether :func:`put_before` was there."""
    return isinstance(module._modules.get(NAME), ImagesAtTrainedSize)
