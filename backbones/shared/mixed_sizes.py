"""Images of several sizes in one batch of a ViT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.fx import Proxy

from visionpe.backbones.shared.images import check_mask
from visionpe.backbones.shared.mixed_images import Batch, Batching, is_mixed, read_mixed
from visionpe.checks import check_choice
from visionpe.grid import Grid
from visionpe.mixed import MixedGrid, Part, mixed_grid, places


class TakesMixedSizes(nn.Module):
    """Mixin of ViTs, ahead of timm's: images of several sizes, each with positions and policies of its own size.

    Given as a list of ``(C, height, width)``, or as timm's NaFlex loader has them. All that is done to single tokens is
    done to those of all images at once; attention is among those of one image.
    """

    # Whether blocks drop their branches for each image where several share a row of the tensor.
    drops_by_image: ClassVar[bool] = False
    # Of the model.
    blocks: Any
    patch_embed: Any
    pos_encoding: Any
    _embed: Any
    _final: Any

    def forward(
        self,
        x: Any,
        attn_mask: Tensor | None = None,
        patch_coord: Tensor | None = None,
        patch_valid: Tensor | None = None,
        batching: Batching = "auto",
    ) -> Any:
        """Images to logits ``(B, num_classes)``.

        Args:
            x: ``(B, C, H, W)``; a list of ``(C, H, W)``, each of its own size; or what timm's NaFlex loader gives: a
                dict of ``patches``, ``patch_coord`` and ``patch_valid``, or the patches.
            attn_mask: Boolean (True takes part) or additive, to broadcast to ``(B, heads, N, N)``; of one size alone.
            patch_coord: Row and column of each patch, ``(B, N, 2)``, where ``x`` are patches.
            patch_valid: Which of these are no padding, boolean ``(B, N)``.
            batching: How tokens of images of several sizes share a tensor, with the same result: ``pad`` to those of
                the longest, ``pack`` one after the other, or ``auto``, which packs where padding would add a tenth.
        """
        mixed: dict[str, Any] = {}
        if is_mixed(x) or not (patch_coord is None or isinstance(patch_coord, Proxy)):
            mixed = {"patch_coord": patch_coord, "patch_valid": patch_valid, "batching": batching}
        mask = {} if attn_mask is None else {"attn_mask": attn_mask}
        return self.forward_head(self.forward_features(x, **mask, **mixed))  # type: ignore[operator]

    def forward_head(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Features to logits; a list, as of images of several sizes, has a row for each of them."""
        if is_mixed(x):
            return self._heads(x, *args, **kwargs)
        return super().forward_head(x, *args, **kwargs)  # type: ignore[misc]

    def _heads(self, features: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, feature in enumerate(features):
            shapes.setdefault(tuple(feature.shape), []).append(index)
        heads = [self.forward_head(torch.stack([features[i] for i in its]), *args, **kwargs) for its in shapes.values()]
        order = places(shapes.values())
        if isinstance(heads[0], tuple):  # of a student in training
            return tuple(torch.cat(each)[order] for each in zip(*heads))
        return torch.cat(heads)[order]

    def _tokens(
        self,
        x: Any,
        attn_mask: Any = None,
        patch_coord: Any = None,
        patch_valid: Any = None,
        batching: Batching = "auto",
    ) -> tuple[Tensor, Grid | MixedGrid]:
        """What the model is given to tokens ``(B, N, dim)``, and where they stand."""
        if not is_mixed(x) and patch_coord is None:
            x, grid = self._embed(x)
            check_mask(attn_mask, x)
            return x, grid
        if attn_mask is not None:
            raise ValueError("attn_mask: images of several sizes would each need their own; allowed: None")
        return self._embed_mixed(self._read_mixed(x, patch_coord, patch_valid), batching)

    def _ended(self, x: Tensor, grid: Grid | MixedGrid) -> Any:
        """What follows the last block; of images of several sizes a list with ``(N, dim)`` for each."""
        if isinstance(grid, MixedGrid):
            return grid.in_order([list(self._final(part)) for part in grid.split(x)])
        return self._final(x)

    def _read_mixed(self, x: Any, patch_coord: Any = None, patch_valid: Any = None) -> list[Batch]:
        return read_mixed(x, patch_coord, patch_valid, self.patch_embed)

    def _embed_mixed(self, batches: Sequence[Batch], batching: Batching) -> tuple[Tensor, MixedGrid]:
        """Tokens of all images in one tensor, and where they stand."""
        check_choice("batching", batching, Batching)
        packed = None if batching == "auto" else batching == "pack"
        if packed is not False and self.training and not self.drops_by_image and self._drops():
            if packed:
                raise ValueError(
                    "batching='pack': in training, blocks of this model would drop a branch for all images at once "
                    "(drop_path_rate); allowed: 'pad', 'auto'"
                )
            packed = False
        tokens, parts = [], []
        for batch in batches:
            x, grid = self._embed(batch.images)
            if batch.kept is not None:
                x, grid = self._take(x, grid, batch.kept)
            tokens.append(x)
            parts.append(Part(grid, batch.samples))
        layout = mixed_grid(parts, packed)
        return layout.join(tokens), layout

    def _drops(self) -> bool:
        return any(isinstance(module, DropPath) and module.drop_prob for module in self.blocks.modules())

    def _take(self, x: Tensor, grid: Grid, kept: Tensor) -> tuple[Tensor, Grid]:
        """Those patches that are there, by their row-major indices ``(B, N)``."""
        for part in self.pos_encoding.parts:
            if not part.takes_coords:
                raise ValueError(
                    f"patch_valid: patches are missing, and pos_encoding={part.name!r} needs the full map of tokens; "
                    "allowed: all patches of each image"
                )
        if not grid.dense:
            raise ValueError("patch_valid: patches are missing already; allowed with that: patch_drop_rate=0")
        rows = torch.arange(len(x), device=x.device)[:, None]
        prefix, spatial = x[:, : grid.prefix], x[:, grid.prefix :]
        return torch.cat((prefix, spatial[rows, kept]), dim=1), grid.kept(kept)
