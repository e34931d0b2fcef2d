"""Plain vision transformer with attention in windows and a few global blocks: ViTDet's backbone, SAM's image encoder.

The tokens stay a map ``(B, height, width, dim)`` from the patch embedding to the last block, so that blocks can cut it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from visionpe.backbones.shared.arguments import MAX_DIM, check_arguments
from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.loading import LoadsPublished, measure_from
from visionpe.backbones.shared.mixed_images import is_mixed
from visionpe.backbones.shared.partition import Padding, Partition
from visionpe.backbones.shared.patches import AdaptivePatchEmbed
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.vit.jax_weights import read_jax
from visionpe.backbones.vit.model import VisionTransformer, check_pool
from visionpe.backbones.vit.tables import adopt_policy
from visionpe.backbones.vitdet.blocks import ResidualWindowBlock, neck
from visionpe.backbones.vitdet.maps import WindowedMaps, places_of
from visionpe.backbones.vitdet.mixed_sizes import SizeBySize
from visionpe.backbones.vitdet.places import block_indices, evenly_spaced_blocks, window_sides
from visionpe.backbones.vitdet.weights import check_windows, convert
from visionpe.cache import TableCache
from visionpe.cameras import Cameras
from visionpe.checks import check_choice, check_count, check_pair
from visionpe.graphs import no_node
from visionpe.grid import Grid
from visionpe.ranges import MAX_PIXELS
from visionpe.registry import Spec
from visionpe.tracing import map_size
from visionpe.utils.timm_reading import load_state_dict as read_file
from visionpe.utils.weight_files import StateDict


class WindowedVisionTransformer(SizeBySize, WindowedMaps, VisionTransformer):
    """ViT whose blocks attend inside windows, but for a few that see the whole map, with any position encoding.

    Parts of the encoding that act on tokens are built once, for the map at ``pretrain_img_size``. Parts that act in
    attention are built once for the global blocks and once for those with windows, which see positions inside these.

    Any height and width runs; what the patch does not divide is padded with zeros below and right. Features and
    :meth:`forward_features` are maps ``(B, channels, height, width)`` at the stride of the patch. As published, the
    last block is followed by no norm (``norm`` is one with ``fc_norm=False``); with ``global_pool="avg"`` the
    classifier has its own, ``fc_norm``, after pooling.

    Args:
        pos_encoding: See :class:`~visionpe.backbones.vit.model.VisionTransformer`. An ``abswin`` gets the
            model's window.
        img_size: Height and width in pixels at which the model is or was trained; policies of the global blocks
            measure from it.
        pretrain_img_size: The same for tables that are added to tokens: ViTDet keeps that of its pretraining, in
            bicubic resize without antialiasing. Loading takes the size of the file's table, whose shape this tells
            where the file does not. Default 224.
        window_size: Side or sides of a window in tokens; 0 for none, all blocks are then global.
        global_blocks: Indices of the blocks that see the whole map; default four evenly spaced.
        residual_blocks: Indices of the blocks that end in convolutions.
        padding: What windows beyond the map hold, see :class:`~visionpe.backbones.shared.block.WindowAttention`.
            Default ``mask``; on loading files of ViTDet or SAM, which were trained with it, ``tokens``.
        neck_channels: Width of SAM's neck after the last block; default none.
        norm_eps: Of the norms in the blocks. Published models have 1e-6; timm's ``samvit_*`` has 1e-5.
        init_values: Initial LayerScale; 0 for none.
        kwargs: timm's own (``patch_size embed_dim depth num_heads mlp_ratio num_classes global_pool fc_norm ...``).

    Raises:
        ValueError: If ``pos_encoding`` is unknown or cannot work here, an index is of no block, or prefix tokens,
            token pooling or dropped patches are asked for.
    """

    family = "ViTDet"

    def __init__(
        self,
        *,
        pos_encoding: Spec = "decomposed+ape",
        img_size: int | tuple[int, int] = 1024,
        patch_size: int | tuple[int, int] = 16,
        pretrain_img_size: int | tuple[int, int] | None = None,
        depth: int = 12,
        window_size: int | tuple[int, int] = 14,
        global_blocks: Sequence[int] | None = None,
        residual_blocks: Sequence[int] = (),
        padding: Padding | None = None,
        neck_channels: int | None = None,
        norm_eps: float = 1e-6,
        init_values: float = 0.0,
        global_pool: str = "avg",
        class_token: bool = False,
        reg_tokens: int = 0,
        patch_drop_rate: float = 0.0,
        dynamic_img_pad: bool = True,
        **kwargs: Any,
    ) -> None:
        check_arguments({"depth": depth, "reg_tokens": reg_tokens, "class_token": class_token, "norm_eps": norm_eps})
        check_arguments({"patch_drop_rate": patch_drop_rate})
        for name, value in (("class_token", class_token), ("reg_tokens", reg_tokens)):
            if value:
                raise ValueError(
                    f"{name}={value!r}: tokens of windowed blocks are a map, which has no place for prefix tokens; "
                    f"allowed: {type(value)()!r}, or a vit_* model"
                )
        if patch_drop_rate:
            raise ValueError(f"patch_drop_rate={patch_drop_rate} would leave holes in the windows; allowed: 0")
        if kwargs.get("talking_heads"):
            raise ValueError("talking_heads=True: heads in windows do not mix; allowed: False, or a vit_* model")
        if padding is not None:
            check_choice("padding", padding, Padding)
        if neck_channels is not None:
            check_count("neck_channels", neck_channels, 0, MAX_DIM)
        window = window_sides(window_size)
        globals_ = (
            tuple(range(depth))
            if not any(window)
            else evenly_spaced_blocks(depth)
            if global_blocks is None
            else global_blocks
        )
        globals_ = block_indices("global_blocks", globals_, depth)
        residual_blocks = block_indices("residual_blocks", residual_blocks, depth)
        check_pool(global_pool, class_token=False)

        def block(*args: Any, depth: int, norm_layer: Callable[..., nn.Module], **options: Any) -> WindowBlock:
            cls = ResidualWindowBlock if depth in residual_blocks else WindowBlock
            norm_layer = partial(norm_layer, eps=norm_eps)
            return cls(*args, depth=depth, norm_layer=norm_layer, padding=padding or "mask", **options)

        super().__init__(
            pos_encoding="none",
            img_size=img_size,
            patch_size=patch_size,
            depth=depth,
            init_values=init_values,
            global_pool=global_pool,
            class_token=False,
            dynamic_img_pad=dynamic_img_pad,
            block_fn=block,
            **kwargs,
        )
        factory = {key: kwargs.get(key) for key in ("device", "dtype")}
        self.window_size, self.padding_is_chosen, self.cache = window, padding is not None, TableCache()
        self.global_blocks = tuple(sorted(globals_))
        self.places = places_of(self.global_blocks, depth)
        kinds = {
            "whole": WindowKind(self.embed_dim, self.num_heads, len(self.global_blocks), self.patch_embed.grid_size),
            "window": WindowKind(self.embed_dim, self.num_heads, depth - len(self.global_blocks), window),
        }
        self.pretrain_is_chosen = pretrain_img_size is not None
        nominal = 224 if pretrain_img_size is None else pretrain_img_size
        self.pretrain_img_size = check_pair("pretrain_img_size", nominal, 1, MAX_PIXELS)
        pretrained = zip(self.pretrain_img_size, self.patch_embed.patch_size)
        self.pos_encoding: StageEncoding = StageEncoding(
            pos_encoding,
            dim=self.embed_dim,
            num_heads=self.num_heads,
            depth=depth,
            grid_size=tuple(max(1, side // patch) for side, patch in pretrained),
            kinds={kind: its for kind, its in kinds.items() if its.depth},
            attention_window=window if all(window) else None,
            **({"window": window} if all(window) else {}),
            **factory,
        )
        adopt_policy(self.pos_encoding.map.parts, "bicubic")
        self.neck: nn.Module = nn.Identity()
        if neck_channels:
            self.neck, self.norm, self.fc_norm = (
                neck(self.embed_dim, neck_channels, **factory),
                nn.Identity(),
                nn.Identity(),
            )
            self.num_features = self.head_hidden_size = neck_channels
            self.reset_classifier(self.num_classes)
        for info in self.feature_info:
            info["num_chs_norm"] = self.num_features

    @property
    def padding(self) -> Padding:
        """What windows beyond the map hold."""
        return self.blocks[0].attn.padding

    @padding.setter
    def padding(self, padding: Padding) -> None:
        for block in self.blocks:
            block.attn.padding = padding

    @no_node
    def _embed(self, x: Tensor, cameras: Cameras | None = None) -> tuple[Tensor, list[list[Partition]]]:
        """Images ``(B, C, H, W)`` to the map of tokens ``(B, height, width, dim)`` and how blocks cut it."""
        if cameras is not None:
            raise ValueError(f"cameras: {self.family} attends in windows of one image; allowed: None, or a plain ViT")
        x = self.patch_embed(x)
        size = map_size(x)
        if self.pos_encoding.map.acts("add"):
            x = self.pos_encoding.map.add(x.flatten(1, 2), Grid(size=size)).unflatten(1, size)
        return self.norm_pre(self.pos_drop(x)), self._partitions(size, x.device)

    def _final(self, x: Tensor) -> Tensor:
        """The last map ``(B, height, width, dim)`` to what the head gets, ``(B, num_features, height, width)``."""
        return self.neck(self.norm(x).permute(0, 3, 1, 2))

    def forward_head(self, x: Any, pre_logits: bool = False) -> Tensor:
        """Maps ``(B, num_features, height, width)`` to logits ``(B, num_classes)``, or to pooled features."""
        if is_mixed(x):
            return self._heads(x, pre_logits)
        return super().forward_head(x.permute(0, 2, 3, 1).flatten(1, 2), pre_logits=pre_logits)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the blocks after the last one asked for and their positions, the final norm or neck, and classifier."""
        if prune_norm:
            self.neck, self.num_features = nn.Identity(), self.embed_dim
            for info in self.feature_info:
                info["num_chs_norm"] = self.embed_dim
        return super().prune_intermediate_layers(indices, prune_norm=prune_norm, prune_head=prune_head)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, or none with 0."""
        super().reset_classifier(num_classes, global_pool)
        if num_classes and self.num_features != self.embed_dim:
            weight = self.patch_embed.proj.weight
            self.head = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype)
            self.head.train(self.training)

    def _set_input_grid(self, grid_size: tuple[int, int]) -> None:
        # Tables of the tokens stay at the size of the pretraining, those of the windows at theirs.
        for part in self.pos_encoding.inside["whole"].parts if "whole" in self.pos_encoding.inside else ():
            part.set_input_grid(grid_size)

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """Load a file of detectron2 (``.pkl``) or an original JAX checkpoint (``.npz``)."""
        if str(checkpoint_path).endswith(".pkl"):
            self.load_state_dict(read_file(checkpoint_path))
        else:
            self.load_state_dict(read_jax(checkpoint_path, prefix, self, img_size=self.pretrain_img_size))

    # Published files were trained at several sizes; their tables, which :meth:`convert_state` takes over, tell.
    cfg_tells_trained_size = False

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Let policies of the global blocks and patches measure from another size, pixels."""
        LoadsPublished.set_trained_size(self, img_size, patch_size)
        if "whole" in self.pos_encoding.inside:
            measure_from(self.pos_encoding.inside["whole"], [s // p for s, p in zip(img_size, patch_size)])
        if isinstance(self.patch_embed, AdaptivePatchEmbed):
            self.patch_embed.set_trained_size(img_size, patch_size)

    def saved_arguments(self) -> dict[str, Any]:
        return super().saved_arguments() | ({} if self.padding == "mask" else {"padding": self.padding})

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)

    def check_state(self, state: StateDict) -> None:
        check_windows(state, self)
