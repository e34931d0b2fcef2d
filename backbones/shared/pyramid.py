"""What every backbone in stages shares: the way through it, features, head, and timm's conventions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from timm.layers import ClassifierHead, trunc_normal_
from torch import Tensor, nn

from visionpe.backbones.shared.arguments import check_arguments
from visionpe.backbones.shared.block import WindowBlock, run_block
from visionpe.backbones.shared.images import take_indices
from visionpe.backbones.shared.loading import LoadsPublished
from visionpe.backbones.shared.options import PyramidOptions, check_pooling
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.stage_encoding import StageEncoding
from visionpe.cache import TableCache
from visionpe.encodings.bias.networks import ScalarLinear
from visionpe.graphs import one_node
from visionpe.grid import Grid
from visionpe.tracing import is_exporting, map_size


class Stage(nn.Module):
    """Blocks of one width and resolution, with what changes the resolution ahead of them.

    Args:
        downsample: Map ``(B, height, width, C)`` of the stage before to that of this one; identity in the first.
        blocks: The blocks.
        encoding: What their tokens are told of positions.
    """

    def __init__(self, downsample: nn.Module, blocks: Sequence[WindowBlock], encoding: StageEncoding) -> None:
        super().__init__()
        self.downsample, self.blocks, self.pos_encoding = downsample, nn.ModuleList(blocks), encoding
        self.grad_checkpointing = False
        # Whether positions are added to the tokens ahead of the blocks: in the first stage, see `StageEncoding`.
        self.adds = False
        self.cache = TableCache()

    @property
    @abstractmethod
    def windows_grow(self) -> bool:
        """Whether windows grow with the map."""

    @abstractmethod
    def partitions(self, size: tuple[int, int], device: torch.device) -> list[list[Partition]]:
        """For every block, how attention partitions a map of this size. Called once a pass."""

    def mask(self, windows: Any, device: torch.device) -> Tensor | None:
        """The additive mask of windows, kept from call to call, or None where they need none."""
        if not windows.masks:
            return None
        return self.cache.get((windows, device), lambda: windows.additive(device))

    def gather(self, windows: Any, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """How to cut the map by one copy, kept likewise; None where a view does or the padding must be zero."""
        if not windows.masks or self.pos_encoding.reads_neighbours or is_exporting():
            return None
        return self.cache.get(("gather", windows, device), lambda: windows.gather(device))

    @one_node
    def forward(self, x: Tensor) -> Any:
        """``(B, height, width, C)`` to ``(B, height', width', C')``."""
        x = self.downsample(x)
        encoding: Any = self.pos_encoding.map
        if (self.adds or self.pos_encoding.joins_every_block) and encoding.acts("add"):
            grid = Grid(size=map_size(x))
            x = encoding.add(x.flatten(1, 2), grid).unflatten(1, grid.size)
        return self.run(x)

    def run(self, x: Tensor) -> Any:
        """The blocks, on a map of this stage."""
        encoding: Any = self.pos_encoding.map
        for index, (block, partitions) in enumerate(zip(self.blocks, self.partitions(map_size(x), x.device))):
            x = run_block(block, index, x, encoding, partitions, checkpointed=self.grad_checkpointing)
        return x


def init_linear(module: nn.Module) -> None:
    """Draw the projections anew as hierarchical transformers do: normal, standard deviation 0.02, zero biases."""
    for each in module.modules():
        if isinstance(each, nn.Linear | ScalarLinear):
            trunc_normal_(each.weight, std=0.02)
            if each.bias is not None:
                nn.init.zeros_(each.bias)


class PrunedNorm(nn.Module):
    """In the place of the norm of features that are not asked for."""


class Pyramid(LoadsPublished):
    """A backbone in stages, with any position encoding, at any height and width.

    A subclass builds ``patch_embed`` (images to a map ``(B, height, width, C)``) and ``stages``, and hands them on.

    Args:
        patch_embed: Images ``(B, C, H, W)`` to a map ``(B, height, width, dim)``.
        stages: The stages.
        encodings: What builds the encoding of each. They come last, so that from one seed all encodings start with the
            same weights around them.
        dims, depths: Width and blocks of each.
        reductions: Pixels per token along each axis, of each.
        options: See :class:`~visionpe.backbones.shared.options.PyramidOptions`.
    """

    # Whether a norm follows the last stage.
    has_final_norm: ClassVar[bool] = True

    def __init__(
        self,
        patch_embed: nn.Module,
        stages: Sequence[Stage],
        encodings: Sequence[Callable[[], StageEncoding]],
        *,
        dims: Sequence[int],
        depths: Sequence[int],
        reductions: Sequence[int],
        options: PyramidOptions,
    ) -> None:
        super().__init__()
        self.depths = tuple(depths)
        self.num_classes, self.global_pool = options.num_classes, options.global_pool
        self.num_features = self.embed_dim = dims[-1]
        self.output_fmt = "NHWC"  # of `forward_features`, as timm's Swin says it
        self.patch_embed, self.stages = patch_embed, nn.ModuleList(stages)
        self.feature_info = [
            {"num_chs": dim, "reduction": reduction, "module": f"stages.{i}"}
            for i, (dim, reduction) in enumerate(zip(dims, reductions))
        ]
        norm, factory = options.norm_layer, options.factory
        self.norms = nn.ModuleList(norm(dim, **factory) for dim in dims) if options.feature_norms else None
        normed = self.has_final_norm and not options.feature_norms
        self.norm = norm(dims[-1], **factory) if normed else nn.Identity()
        self.head = self._build_head(
            dims[-1],
            num_classes=options.num_classes,
            pool_type=options.global_pool,
            drop_rate=options.drop_rate,
            input_fmt="NHWC",
            **factory,
        )
        self.head_hidden_size = self.head.in_features
        init_linear(self)
        for stage, encoding in zip(stages, encodings):
            stage.pos_encoding = encoding()
        stages[0].adds = True

    def _build_head(self, dim: int, **options: Any) -> ClassifierHead:
        """What is made of the last map, ``dim`` wide."""
        return ClassifierHead(dim, **options)

    def _normed(self, x: Tensor, index: int) -> Tensor:
        """Features of a stage as dense heads get them."""
        if self.norms is None:
            return x
        norm = self.norms[index]
        if isinstance(norm, PrunedNorm):
            raise ValueError(f"indices: the norm of stage {index} was dropped with the features that nobody asked for")
        return norm(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the normed map of the last stage, ``(B, height, width, dim)``."""
        x = self.patch_embed(x)
        for stage in self.stages:
            x = stage(x)
        return self._final(x)

    def _final(self, x: Any) -> Tensor:
        """What the last stage gives, normed."""
        return self.norm(self._normed(x, -1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """That map to logits ``(B, num_classes)``, or to pooled features."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Features of the stages, in timm's manner.

        Args:
            x: Images ``(B, C, H, W)``.
            indices: The last n stages if an int, these stages if a sequence, all if None.
            norm: Apply the final norm to the last stage; norms of the features, where the model has them, always are.
            stop_early: Run no stage after the last one asked for.
            output_fmt: ``NCHW`` or ``NHWC``.
            intermediates_only: Leave the final features out.

        Returns:
            ``(final map, list of features)``, or the list alone.

        Raises:
            ValueError: If ``output_fmt`` is neither.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r} is unknown; allowed: NCHW, NHWC")
        wanted, last = take_indices(len(self.stages), indices)
        x, taken = self.patch_embed(x), []
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if index in wanted:
                feature = self._normed(x, index)
                feature = self.norm(feature) if norm and index == len(self.stages) - 1 else feature
                taken.append(feature.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else feature)
        if intermediates_only:
            return taken
        return (self._final(x) if len(wanted) and index == len(self.stages) - 1 else x), taken

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one asked for, norms of the others, the final norm and the classifier."""
        wanted, last = take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if self.norms is not None:
            self.norms = self.norms[: last + 1]
            for index in set(range(last)) - set(wanted):
                self.norms[index] = PrunedNorm()
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, or none with 0."""
        check_arguments({"num_classes": num_classes})
        check_pooling(self.head.global_pool.pool_type if global_pool is None else global_pool, num_classes)
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone."""
        return {
            f"stages.{i}.pos_encoding.{key}"
            for i, stage in enumerate(self.stages)
            for key in stage.pos_encoding.no_weight_decay()  # type: ignore[union-attr, operator]
        }

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions of a stage belong to its beginning."""
        if coarse:
            blocks: list[tuple[str, Any]] = [(r"^stages\.(\d+)", None), (r"^norms?\.", (99999,))]
        else:
            blocks = [
                (r"^stages\.(\d+)\.(?:downsample|pos_encoding|cls_token)", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^norms?\.", (99999,)),
            ]
        return {"stem": r"^patch_embed", "blocks": blocks}
