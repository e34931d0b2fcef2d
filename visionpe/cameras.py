"""What is known of the cameras of several views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.checks import check_counts, check_number
from visionpe.opaque import opaque
from visionpe.tracing import is_tracing, is_transformed

# Of a matrix whose columns are of length 1: below this volume it is no longer told from one without an inverse.
FLAT = 1e-5


def affine_inverse(m: Tensor) -> Tensor:
    """The inverse of ``[A a; 0 1]``, ``(..., 4, 4)``, by cofactors: exact to rounding, and in every kind of graph."""
    x, y, z = m[..., :3, :3].unbind(-2)  # rows
    cofactors = torch.stack([torch.linalg.cross(*pair) for pair in ((y, z), (z, x), (x, y))], dim=-1)
    inverse = cofactors / (x * cofactors[..., 0]).sum(-1)[..., None, None]
    shift = -(inverse * m[..., None, :3, 3]).sum(-1)
    return torch.cat((torch.cat((inverse, shift[..., None]), dim=-1), m[..., 3:, :]), dim=-2)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Of small matrices, without the units that multiply with fewer digits."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def lifted(k: Tensor) -> Tensor:
    """Intrinsics as ``[K 0; 0 1]``, ``(..., 4, 4)``."""
    return F.pad(k, (0, 1, 0, 1)) + torch.diag(k.new_tensor([0.0, 0.0, 0.0, 1.0]))


def check_matrices(name: str, matrices: Any, side: int) -> None:
    """Refuse what cannot be matrices of cameras; their numbers are not looked at while a graph is traced.

    Raises:
        TypeError: If they are no tensor of float32 or float64.
        ValueError: If they have another shape or last row, hold NaN or infinity, or have no inverse.
    """
    allowed = f"float32 or float64 (V, {side}, {side}) or (B, V, {side}, {side})"
    if not isinstance(matrices, Tensor) or matrices.dtype not in (torch.float32, torch.float64):
        what = matrices.dtype if isinstance(matrices, Tensor) else type(matrices).__name__
        raise TypeError(f"{name}={what}: no matrices of enough digits; allowed: {allowed}")
    if matrices.ndim not in (3, 4) or matrices.shape[-2:] != (side, side) or 0 in matrices.shape:
        raise ValueError(f"{name}={tuple(matrices.shape)} is no shape of them; allowed: {allowed}")
    if is_tracing() or is_transformed():
        return
    numbers = matrices.detach()
    if not numbers.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinity; allowed: finite numbers")
    last = numbers.new_tensor([0.0] * (side - 1) + [1.0])
    if (numbers[..., -1, :] - last).abs().max() > 1e-6:
        raise ValueError(f"{name} have another last row than {last.tolist()}; allowed: that one")
    inner = numbers[..., :3, :3].double() if numbers.device.type != "mps" else numbers[..., :3, :3]
    volume = torch.linalg.det(inner / inner.norm(dim=-1, keepdim=True).clamp(min=1e-30)).abs()
    if volume.min() < FLAT:
        which = tuple(int(n) for n in (volume == volume.min()).nonzero()[0])
        raise ValueError(f"{name} of camera {which if len(which) > 1 else which[0]} has no inverse; allowed: with one")


@opaque
@dataclass(frozen=True, eq=False)
class Cameras:
    """The cameras of V views, of one scene or of each in a batch.

    A place x of the world is seen at ``K (R x + t)``, up to scale: x to the right, y down and z ahead, as in OpenCV.

    Args:
        extrinsics: World to camera, ``[R t; 0 1]``, ``(V, 4, 4)`` or ``(B, V, 4, 4)``, in any unit of length.
        intrinsics: K of an image that is 1 wide and 1 high, ``(V, 3, 3)`` or ``(B, V, 3, 3)``: its first row is that in
            pixels over the width, its second over the height, so that the same K holds at every size. See
            :meth:`from_pixels`. None where they are not known.

    Raises:
        TypeError: If one is no tensor of float32 or float64.
        ValueError: If a shape is another or they disagree, a number is NaN or infinite, the last row is not 0, ..., 1,
            or there is no inverse. Numbers are not looked at while a graph is traced.
    """

    extrinsics: Tensor
    intrinsics: Tensor | None = None

    def __post_init__(self) -> None:
        check_matrices("extrinsics", self.extrinsics, 4)
        if self.intrinsics is None:
            return
        check_matrices("intrinsics", self.intrinsics, 3)
        batched = self.extrinsics.ndim == self.intrinsics.ndim == 4
        if self.intrinsics.shape[-3] != self.count or (
            batched and self.extrinsics.shape[0] != self.intrinsics.shape[0]
        ):
            given = tuple(self.intrinsics.shape)
            raise ValueError(
                f"intrinsics={given} are of other views than extrinsics={tuple(self.extrinsics.shape)}; allowed: the "
                "same V, and the same B where both have it"
            )

    @classmethod
    def from_pixels(cls, extrinsics: Tensor, intrinsics: Tensor, image_size: Sequence[int]) -> Cameras:
        """Cameras whose intrinsics are in pixels of images of ``image_size``, height and width.

        Raises:
            TypeError, ValueError: As the constructor, and if ``image_size`` is not two positive numbers.
        """
        check_matrices("intrinsics", intrinsics, 3)
        height, width = check_counts("image_size", image_size, 2, 1)
        return cls(extrinsics, intrinsics / intrinsics.new_tensor([[width], [height], [1]]))

    @classmethod
    def pinhole(cls, extrinsics: Tensor, focal: float, image_size: Sequence[int]) -> Cameras:
        """Cameras that look through the middle of the image, all with one focal length, pixels.

        Raises:
            TypeError, ValueError: As the constructor, and if ``focal`` is not positive.
        """
        check_matrices("extrinsics", extrinsics, 4)
        check_number("focal", focal, above=0)
        height, width = check_counts("image_size", image_size, 2, 1)
        k = extrinsics.new_tensor([[focal / width, 0, 0.5], [0, focal / height, 0.5], [0, 0, 1]])
        return cls(extrinsics, k.expand(extrinsics.shape[-3], 3, 3))

    @property
    def count(self) -> int:
        """Views."""
        return self.extrinsics.shape[-3]

    @property
    def batch(self) -> int | None:
        """Scenes, or None where all samples share the cameras."""
        batched = [t for t in (self.extrinsics, self.intrinsics) if t is not None and t.ndim == 4]
        return batched[0].shape[0] if batched else None

    @property
    def learns(self) -> bool:
        """Whether gradients reach the cameras."""
        return torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (self.extrinsics, self.intrinsics)
        )

    def from_first(self) -> Cameras:
        """The same in a world that is as the first camera of each scene sees it."""
        first = affine_inverse(self.extrinsics[..., :1, :, :])
        return self._known(product(self.extrinsics, first), self.intrinsics)

    def to(self, *args: Any, **kwargs: Any) -> Cameras:
        """The same on another device or in another dtype, as ``Tensor.to``."""
        k = self.intrinsics
        return self._known(self.extrinsics.to(*args, **kwargs), None if k is None else k.to(*args, **kwargs))

    @classmethod
    def _known(cls, extrinsics: Tensor, intrinsics: Tensor | None) -> Cameras:
        """Of what was looked at before: to look again, a device would have to be waited for."""
        cameras = object.__new__(cls)
        cameras.__dict__.update(extrinsics=extrinsics, intrinsics=intrinsics)
        return cameras
