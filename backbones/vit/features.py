"""Features between the blocks of a ViT, in timm's manner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.backbones.shared.block import tokens_of
from visionpe.backbones.shared.images import read_mask, take_indices
from visionpe.grid import Grid
from visionpe.mixed import MixedGrid

torch.fx.wrap("to_map")  # one node of a graph: there it is not known whether patches were dropped


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens ``(B, N, dim)`` of every patch to a map ``(B, dim, height, width)``.

    Raises:
        ValueError: If patches were dropped.
    """
    if not grid.dense:
        raise ValueError("output_fmt='NCHW' needs every patch; use 'NLC' where patch_drop_rate drops some")
    return tokens.transpose(1, 2).unflatten(2, grid.size).contiguous()


def _of_each(feature: Any, x: Tensor, grid: MixedGrid) -> tuple[list[Tensor], list[Tensor]]:
    """What ``feature(tokens, grid)`` gives of each part, for each image, in the order of the batch."""
    both = [feature(its, part.grid) for its, part in zip(grid.split(x), grid.parts)]
    return grid.in_order([list(maps) for maps, _ in both]), grid.in_order([list(prefix) for _, prefix in both])


class GivesFeatures(nn.Module):
    """Mixin of ViTs: what ``features_only`` and dense heads take."""

    # Of the model.
    blocks: Any
    norm: Any
    pos_encoding: Any
    num_prefix_tokens: int
    cut_keys: set[str]
    _embed: Any
    _final: Any
    _block: Any

    def _tokens(self, x: Any, attn_mask: Any = None) -> tuple[Tensor, Any]:
        """Images to tokens, and where they stand."""
        return self._embed(x)

    def _ended(self, x: Tensor, grid: Any) -> Any:
        """What follows the last block."""
        return self._final(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """Features between the blocks, in timm's manner.

        Args:
            x: Images ``(B, C, H, W)``, or of several sizes as in :meth:`forward`; every feature is then a list.
            indices: The last n blocks if an int, these blocks if a sequence, all if None.
            return_prefix_tokens: Give ``(map, prefix tokens)`` pairs.
            norm: Apply the final norm to each.
            stop_early: Run no block after the last one asked for.
            output_fmt: ``NCHW`` or ``NLC``.
            intermediates_only: Leave the final features out.
            output_dict: Give a dict of ``image_features``, ``image_intermediates`` and, if asked for,
                ``image_intermediates_prefix``.
            attn_mask: As in :meth:`forward`.
            is_causal: Likewise.

        Returns:
            ``(final tokens, list of features)``, the list alone, or the dict.

        Raises:
            ValueError: If ``output_fmt`` is neither.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt={output_fmt!r} is unknown; allowed: NCHW, NLC")
        wanted, last = take_indices(len(self.blocks), indices)
        x, grid = self._tokens(x, attn_mask)
        if isinstance(grid, MixedGrid) and is_causal:
            raise ValueError("is_causal=True: images of several sizes have no order; allowed: False")
        attn_mask = read_mask(attn_mask, x, is_causal)
        features, prefixes = [], []
        for index in range(last + 1 if stop_early else len(self.blocks)):
            x = self._block(index, x, grid, attn_mask)
            if index in wanted:
                feature, prefix = self._feature(tokens_of(x), grid, norm=norm, as_map=output_fmt == "NCHW")
                features.append(feature)
                prefixes.append(prefix)
        has_prefix, x = bool(self.num_prefix_tokens), tokens_of(x)
        if output_dict:
            result: dict[str, Any] = {"image_intermediates": features}
            if return_prefix_tokens and has_prefix:
                result["image_intermediates_prefix"] = prefixes
            return result if intermediates_only else result | {"image_features": self._ended(x, grid)}
        outputs = list(zip(features, prefixes)) if return_prefix_tokens and has_prefix else features
        return outputs if intermediates_only else (self._ended(x, grid), outputs)

    def _feature(self, x: Tensor, grid: Any, *, norm: bool, as_map: bool) -> tuple[Any, Any]:
        """Tokens after a block as a feature, a map or a sequence, and the prefix tokens apart.

        Raises:
            ValueError: If a map is asked for and patches were dropped.
        """
        x = self.norm(x) if norm else x
        if isinstance(grid, MixedGrid):
            return _of_each(lambda its, own: self._feature(its, own, norm=False, as_map=as_map), x, grid)
        feature, prefix = x[:, grid.prefix :], x[:, : grid.prefix]
        return to_map(feature, grid) if as_map else feature, prefix

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the blocks after the last one asked for and their positions, the final norm and the classifier."""
        wanted, _ = take_indices(len(self.blocks), indices)
        super().prune_intermediate_layers(wanted, prune_norm=prune_norm, prune_head=prune_head)  # type: ignore[misc]
        before = set(self.pos_encoding.state_dict())
        self._keep_encodings(len(self.blocks))
        self.cut_keys |= {f"pos_encoding.{key}" for key in before - set(self.pos_encoding.state_dict())}
        return wanted

    def _keep_encodings(self, count: int) -> None:
        """Drop from the encodings what belongs to other blocks than the first ``count``."""
        self.pos_encoding.keep_blocks(count)
