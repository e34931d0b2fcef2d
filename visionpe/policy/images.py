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


def at_trained_size(x: Tensor, size: Size) -> Tensor:
    """What ``downscale`` makes of images ``(B, C, H, W)``: those of ``size``, by antialiased bicubic interpolation.

    Raises:
        ValueError: Under ``torch.export`` for several sizes.
    """
    refuse_export(PolicyTerm("downscale"), ("none, with images that were resized",), x.shape[2:])
    return resize_images(x, size)


class ImagesAtTrainedSize(HasPolicy, nn.Module):
    """Under ``downscale``, images at the trained size; else images as they are.

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
        return x if not self._terms or x.ndim != 4 else at_trained_size(x, self.size)


class _Before:
    """The hook; copied and pickled with a model, it keeps to the copy."""

    def __init__(self, images: ImagesAtTrainedSize) -> None:
        self.images = images

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return self.images(args[0]), *args[1:]


def put_before(model: nn.Module, path: str, size: Size) -> None:
    """Let the module of a model that sees the images first get them so.

    Args:
        model: Changed in place: it holds what has the policy, and no further parameters.
        path: Of that module.
        size: At which the model was trained, pixels.
    """
    images = ImagesAtTrainedSize(size)
    model.add_module(NAME, images)
    model.get_submodule(path).register_forward_pre_hook(_Before(images))


def is_behind(module: nn.Module) -> bool:
    """Whether a module is the one that :func:`put_before` found."""
    return any(isinstance(hook, _Before) for hook in module._forward_pre_hooks.values())
