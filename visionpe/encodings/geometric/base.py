"""What encodings share that turn queries, keys and values by the camera of their view, and the output back."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from visionpe.cameras import Cameras
from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.encodings.rotary.blocks import turn_blocks
from visionpe.encodings.rotary.pairs import rotate_pairs
from visionpe.grid import Grid
from visionpe.precision import without_autocast

# The side of the matrices of cameras.
BLOCK = 4


class CameraEncoding(RotaryEncoding):
    """Base of the encodings in which a token of view i sees one of view j through ``M_i M_j^-1``.

    A head's channels are, in order: those that stay as they are, those that the matrix M of the camera acts on, in
    blocks of 4, and those that turn with the place in the image, as of any rotary encoding. Queries are multiplied by
    ``M^T``, keys and values by ``M^-1`` and the output by ``M``; the pairs of channels turn in all of them, and back in
    the output. So attention depends on the cameras by ``M_i M_j^-1`` alone, and on places by their offset.
    Poses are told from the first camera of a scene, in which prefix tokens stand, as they are: what the world has for
    its origin does not matter to them either.

    Without cameras all tokens are of one view, through which they see each other unchanged: the pairs turn alone. The
    same is done where no camera is known of a model of single images. Matrices are float32 or more whatever the dtype
    of the tokens; they are made once a pass, ``(N, 4, 4)``.

    Args:
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; coordinates do not move at random.

    Attributes:
        still, seen, placed: Channels of a head that stay, that the cameras act on, and that turn with the place.

    Raises:
        ValueError: If the grid has other than two axes, or coordinates are to move at random.
    """

    # The values of queries that stand elsewhere are turned by where keys stand, the output by where queries do.
    takes_pooled = True
    still = 0
    # Set by the subclass.
    seen: int
    placed: int

    def __init__(self, **context: Any) -> None:
        for option in ("shift_coords", "jitter_coords", "rescale_coords"):
            if context.get(option) is not None:
                raise ValueError(
                    f"{option}={context[option]!r}: {type(self).name!r} turns the output back by where the values "
                    "stood, which must not move in between; allowed: None"
                )
        super().__init__(**context)
        self.check_two_axes()

    @abstractmethod
    def camera_matrices(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """M of each camera and its inverse, ``([B,] V, 4, 4)``, in the dtype of the cameras."""

    def _matrices(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor] | None:
        """M of each token and its inverse, ``([B,] 1, N, 1, 4, 4)``, of prefix tokens the identity."""
        cameras = grid.cameras
        if cameras is None or not self.seen:
            return None
        if cameras.batch not in (None, x.shape[0]):
            raise ValueError(f"cameras of {cameras.batch} scenes for {x.shape[0]}; allowed: as many, or no batch axis")
        dtype = torch.promote_types(x.dtype, torch.float32)

        def build() -> tuple[Tensor, Tensor]:
            matrices = self.camera_matrices(cameras.from_first())
            there, back = (self._of_tokens(m.to(x.device, dtype), grid) for m in matrices)
            return there, back

        if cameras.learns:  # what a checkpointed block makes must be made anew when it runs again
            return build()
        return grid.keep((self, "cameras", x.device, dtype), build)

    @staticmethod
    def _of_tokens(matrices: Tensor, grid: Grid) -> Tensor:
        told = grid.of_views(matrices)  # ([B,] N, 4, 4)
        if grid.prefix:
            still = torch.eye(BLOCK, device=told.device, dtype=told.dtype)
            told = torch.cat((still.expand(*told.shape[:-3], grid.prefix, BLOCK, BLOCK), told), dim=-3)
        return told[..., None, :, None, :, :]

    def _scaled_matrices(self, x: Tensor, grid: Grid, layer: int) -> tuple[Tensor, Tensor] | None:
        """The matrices of block ``layer``. Default: those of all."""
        return self._matrices(x, grid)

    def _turned(self, x: Tensor, matrix: Tensor | None, rotation: Tensor) -> Tensor:
        still, seen, placed = x.split([self.still, self.seen, self.placed], dim=-1)
        turned = rotate_pairs(placed, rotation, self.layout, len(self.grid_size))
        if matrix is not None:
            seen = turn_blocks(seen, matrix)
        return torch.cat([part for part in (still, seen, turned) if part.shape[-1]], dim=-1)

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            queries, keys = self._rotations(grid, layer=layer, device=q.device, dtype=q.dtype)
            there, back = self._scaled_matrices(q, grid, layer) or (None, None)
            across = None if there is None else there.mT
            return self._turned(q, across, queries), self._turned(k, back, keys)

    def value(self, v: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        self._check_width(v)
        with without_autocast(v):
            _, keys = self._rotations(grid, layer=layer, device=v.device, dtype=v.dtype)
            _, back = self._scaled_matrices(v, grid, layer) or (None, None)
            return self._turned(v, back, keys)

    def output(self, attended: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        with without_autocast(attended):
            queries, _ = self._rotations(grid, layer=layer, device=attended.device, dtype=attended.dtype)
            there, _ = self._scaled_matrices(attended, grid, layer) or (None, None)
            return self._turned(attended, there, opposite(queries, self.layout))

    def _check_width(self, v: Tensor) -> None:
        if v.shape[-1] != self.head_dim:
            raise ValueError(
                f"pos_encoding={type(self).name!r} acts on values, which are {v.shape[-1]} channels wide a head here, "
                f"where keys have {self.head_dim}; allowed: what acts on tokens, queries, keys or logits"
            )


def opposite(rotation: Tensor, layout: str) -> Tensor:
    """The same angles the other way; see :func:`~visionpe.encodings.rotary.pairs.rotate_pairs`."""
    which = -1 if layout == "adjacent" else -2
    cos, sin = rotation.unbind(which)
    return torch.stack((cos, -sin), dim=which)
