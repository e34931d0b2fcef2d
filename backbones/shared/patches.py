"""A patch embedding whose patch may grow with the image, or that may take the image at the trained size."""

from __future__ import annotations

from operator import index
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.layers.format import Format, nchw_to
from torch import Tensor

from visionpe.backbones.shared.images import check_images
from visionpe.graphs import one_node
from visionpe.policy.functions.patches import resize_patch
from visionpe.policy.functions.terms import refuse_export
from visionpe.policy.grammar import PolicyTerm
from visionpe.policy.holder import HasPolicy
from visionpe.policy.images import at_trained_size

# A patch may differ from what was asked for by this factor, or the tokens would be too many or too few.
SLACK = 2


@torch.compiler.assume_constant_result
def nearest_divisor(n: int, wanted: float) -> int:
    """The divisor of a whole number whose ratio to ``wanted`` is nearest to one."""
    return min((d for d in range(1, n + 1) if n % d == 0), key=lambda d: max(d / wanted, wanted / d))


class AdaptivePatchEmbed(HasPolicy, PatchEmbed):
    """timm's patch embedding; under ``patch_resize`` and ``downscale`` images of every size become as many tokens.

    ``downscale``: images are resized to the trained size (antialiased bicubic), whether they are larger or smaller.

    ``patch_resize``: the side of a patch is the trained one times the side of the image over its trained side, along
    each axis: with ``dynamic_img_pad`` rounded, and what is missing from the last patch is zero; otherwise the divisor
    of the side nearest to it, in ratio. The kernel is resized for it
    (:func:`~visionpe.policy.functions.resize_patch`); parameters, and the nominal ``patch_size``, stay.

    Source: FlexiViT, arXiv 2212.08013, section 3.4.

    Args:
        args, kwargs: timm's own.
    """

    name = "patch_embed"
    modifiers: ClassVar[tuple[str, ...]] = ("patch_resize", "downscale")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.measure()

    def measure(self) -> None:
        """Measure from the size that it was built for; no policy is in force."""
        self.policy = None
        self.mark_as_built()
        if self.img_size is None:  # nothing to measure from
            self.modifiers = ()  # type: ignore[misc]
        else:
            self.set_trained_size(self.img_size, self.patch_size)

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Take another size of the images, and of the patches, for the trained one, pixels."""
        self.trained_img_size, self.trained_patch_size = img_size, patch_size

    @property
    def pads(self) -> bool:
        """Whether images that the patch does not divide are padded, or meet patches of another size."""
        return self.dynamic_img_pad or self.grows

    @property
    def grows(self) -> bool:
        """Whether patches grow with the image."""
        return self.modifier("patch_resize") is not None

    def at_trained_size(self, x: Tensor) -> Tensor:
        """Images at the trained size under ``downscale``; else as they are."""
        if not self._terms or self.modifier("downscale") is None:
            return x
        check_images(x, self.proj.in_channels, self.proj)
        return at_trained_size(x, self.trained_img_size)

    def patch(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a patch on an image of this size, pixels.

        Raises:
            ValueError: If a side has no fitting divisor, and images are not padded.
        """
        if not self.grows:
            return self.patch_size
        sides = zip(("height", "width"), size, self.trained_img_size, self.trained_patch_size)
        height, width = (self._side(what, n, trained, patch) for what, n, trained, patch in sides)
        return height, width

    def _side(self, what: str, n: int, trained: int, patch: int) -> int:
        if self.dynamic_img_pad:
            return max(1, (2 * n * patch + trained) // (2 * trained))
        wanted = n * patch / trained
        best = nearest_divisor(n, wanted)
        if max(best / wanted, wanted / best) > SLACK:
            raise ValueError(
                f"policy='patch_resize': a {what} of {n} pixels has no divisor near {wanted:.4g}, the patch for the "
                f"{trained // patch} tokens of training; allowed: a multiple of that number, or dynamic_img_pad=True"
            )
        return best

    def _as_built(self, x: Tensor) -> Tensor:
        """Images of a built size that patches do not divide, without what none covers, as timm has it."""
        built = self.img_size
        if self.pads or built is None or not any(n % p for n, p in zip(built, self.patch_size)):
            return x
        if x.ndim != 4 or tuple(x.shape[2:]) != tuple(built):
            return x
        height, width = (n - n % p for n, p in zip(built, self.patch_size))
        return x[..., :height, :width]

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to tokens, in ``output_fmt``."""
        x = self._as_built(self.at_trained_size(x))
        check_images(x, self.proj.in_channels, self.proj, None if self.pads else self.patch_size)
        if not self.grows:
            return super().forward(x)
        refuse_export(
            PolicyTerm("patch_resize"), ("none, with the size at hand as img_size and patch_size",), x.shape[2:]
        )
        height, width = (index(n) for n in x.shape[2:])
        down, right = self.patch((height, width))
        if self.dynamic_img_pad:
            x = F.pad(x, (0, -width % right, 0, -height % down))
        x = F.conv2d(x, resize_patch(self.proj.weight, (down, right)), self.proj.bias, stride=(down, right))
        if self.flatten:
            x = x.flatten(2).transpose(1, 2)
        elif self.output_fmt != Format.NCHW:
            x = nchw_to(x, self.output_fmt)
        return self.norm(x)

    def extra_repr(self) -> str:
        return f"policy={self.policy!r}" if self.policy else ""
