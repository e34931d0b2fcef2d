"""What every backbone on sparse voxels shares: features, head, and timm's conventions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from timm.models import checkpoint
from torch import Tensor, nn

from visionpe.backbones.shared.images import take_indices
from visionpe.backbones.shared.loading import LoadsPublished
from visionpe.backbones.shared.pyramid import init_linear
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.voxel_blocks import SparseBlock
from visionpe.backbones.shared.voxel_checks import check_irregular, check_settings
from visionpe.backbones.shared.voxel_level import Level, Parts
from visionpe.base import PositionEncoding
from visionpe.encodings.bias.crse import parse_signals
from visionpe.registry import Spec
from visionpe.sparse import Voxels


class VoxelStage(nn.Module):
    """Blocks of one level.

    Args:
        encoding: What their voxels are told of positions.

    Attributes:
        adds: Whether tables are added ahead of these blocks: they come first.
        grad_checkpointing: Compute them again where their gradients are asked for.
    """

    def __init__(self, encoding: StageEncoding) -> None:
        super().__init__()
        self.pos_encoding = encoding
        self.adds = self.grad_checkpointing = False

    def told(self, x: Tensor, level: Level) -> Tensor:
        """Voxels ``(N, dim)`` with what is added ahead of the first block."""
        encoding: Any = self.pos_encoding.map
        joins = self.pos_encoding.joins_every_block
        if not (encoding.acts("add") and (joins or self.adds)):
            return x
        return encoding.add(x[None], level.cells if joins else level.places)[0]

    def run(self, block: SparseBlock, x: Tensor, level: Level, parts: Parts) -> Tensor:
        """One of them, ``(N, dim)`` to ``(N, dim)``."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, self.pos_encoding, level, parts)
        return block(x, self.pos_encoding, level, parts)


class VoxelBackbone(LoadsPublished):
    """Voxels to the features of every level, or to one vector (or class scores) for each cloud.

    A subclass sets what stands below, and says what the levels are.
    """

    family: ClassVar[str]
    feature_info: Any
    num_classes: int
    num_features: int
    global_pool: str
    head_drop: nn.Module
    factory: dict[str, Any]
    block_options: dict[str, Any]

    def keep_settings(
        self,
        in_chans: int,
        global_pool: str,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        reductions: Sequence[int],
        *,
        cloud_size: int,
        signals: str,
        pos_encoding: Spec,
        device: Any,
        dtype: Any,
        **block_options: Any,
    ) -> None:
        """Keep what a constructor was given; ``reductions`` are sides of cells in voxels, the rest is for blocks.

        Raises:
            ValueError: If the encoding needs tokens on a full grid, or a signal is unknown.
        """
        check_irregular(pos_encoding, self.family)
        self.factory, self.in_chans, self.global_pool = {"device": device, "dtype": dtype}, in_chans, global_pool
        self.embed_dims, self.depths, self.num_heads = tuple(embed_dims), tuple(depths), tuple(num_heads)
        self.reductions, self.cloud_size = tuple(reductions), cloud_size
        self.signals, self.spec = parse_signals(signals), pos_encoding
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dims[-1]
        self.block_options = {"norm_layer": partial(nn.LayerNorm, eps=1e-5), **block_options, **self.factory}
        self.feature_info = [
            {"num_chs": dim, "reduction": reduction, "module": f"stages.{i}"}
            for i, (dim, reduction) in enumerate(zip(embed_dims, reductions))
        ]

    def encoded_blocks(
        self, level: int, dim: int, heads: int, side: int, rates: Sequence[float], *, first: bool, **context: Any
    ) -> tuple[list[SparseBlock], StageEncoding]:
        """Blocks of a level, one for each rate of drop path, and what their voxels are told of positions.

        Args:
            level: Its number, the finest 0.
            dim, heads: Of the blocks.
            side: Of the parts among whose voxels there is attention, cells.
            rates: Of drop path.
            first: Whether nothing attends before.
            context: Further keywords of encodings.
        """
        encoding = StageEncoding(
            self.spec,
            dim=dim,
            num_heads=heads,
            depth=len(rates),
            grid_size=(max(1, -(-self.cloud_size // self.reductions[level])),) * 3,
            kinds={"window": WindowKind(dim, heads, len(rates), (side,) * 3)},
            first=first,
            signals="_".join(self.signals),
            **context,
            **self.factory,
        )
        options = self.block_options
        return [SparseBlock(dim, heads, depth=i, drop_path=rate, **options) for i, rate in enumerate(rates)], encoding

    def finish(self, stages: nn.ModuleList, drop_rate: float, num_classes: int) -> None:
        """The end of a constructor: tables join ahead of the first stage, a head, the weights of linear layers."""
        first: Any = stages[0]
        first.adds = True
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        init_linear(self)

    @abstractmethod
    def encode(self, x: Any, stop: int | None = None) -> list[tuple[Tensor, Level]]:
        """Features ``(N, dim)`` of every level up to ``stop``, the finest first, and the level."""

    def forward_features(self, x: Any) -> Voxels:
        """Voxels to those of the last level."""
        y, level = self.encode(x)[-1]
        return level.holding(y)

    def forward_head(self, x: Voxels, pre_logits: bool = False) -> Tensor:
        """Voxels of the last level to class scores ``(clouds, num_classes)``, or to the mean of each cloud."""
        count = torch.bincount(x.cloud)[:, None].clamp(min=1)
        mean = x.features.new_zeros(len(count), x.features.shape[1]).index_add(0, x.cloud, x.features) / count
        return mean if pre_logits else self.head(self.head_drop(mean))

    def forward(self, x: Any) -> Any:
        """Voxels to class scores ``(clouds, num_classes)``; with ``num_classes=0`` to the mean of each cloud."""
        features = self.forward_features(x)
        return self.forward_head(features) if self.global_pool else features

    def forward_intermediates(
        self,
        x: Any,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Voxels of the levels, in timm's manner.

        Args:
            x: Voxels.
            indices: The last n levels if an int, these levels if a sequence, all if None.
            norm, output_fmt: Have no effect: there is no final norm, and voxels have no layout.
            stop_early: Compute no level after the last one asked for.
            intermediates_only: Leave the final voxels out.

        Returns:
            ``(final voxels, list of voxels)``, or the list alone. Features are those ahead of the next level.
        """
        wanted, last = take_indices(len(self.feature_info), indices)
        levels = [level.holding(y) for y, level in self.encode(x, last if stop_early else None)]
        taken = [each for i, each in enumerate(levels) if i in wanted]
        return taken if intermediates_only else (levels[-1], taken)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head, or none with 0."""
        check_settings(num_classes=num_classes, **({} if global_pool is None else {"global_pool": global_pool}))
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.num_features, num_classes, **self.factory)
        init_linear(self.head)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for each in self.modules():
            if isinstance(each, VoxelStage):
                each.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone."""
        encodings = [(name, each) for name, each in self.named_modules() if isinstance(each, PositionEncoding)]
        return {f"{name}.{key}" for name, each in encodings for key in each.no_weight_decay()}


class VoxelUNet(VoxelBackbone):
    """Mixin, ahead of an encoder: class scores for every voxel.

    Attributes:
        decoder_of: Name of the modules of the decoder.
    """

    decoder_of: ClassVar[str]
    classifier: nn.Module

    @abstractmethod
    def new_classifier(self, dim: int, num_classes: int) -> nn.Module:
        """``(N, dim)`` to ``(N, num_classes)``."""

    def forward_head(self, x: Voxels, pre_logits: bool = False) -> Tensor:
        """Voxels to class scores ``(N, num_classes)``, or to their features."""
        return x.features if pre_logits else self.classifier(self.head_drop(x.features))

    def forward(self, x: Any) -> Tensor:
        """Voxels to class scores ``(N, num_classes)``."""
        return self.forward_head(self.forward_features(x))

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the decoder, and the levels of the encoder after the last one asked for."""
        setattr(self, self.decoder_of, nn.ModuleList())
        wanted: list[int] = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        return wanted

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, or none with 0; nothing is pooled."""
        check_settings(num_classes=num_classes, **({} if global_pool is None else {"global_pool": global_pool}))
        self.num_classes = num_classes
        self.classifier = self.new_classifier(self.num_features, num_classes) if num_classes else nn.Identity()
        init_linear(self.classifier)
