"""Plain vision transformer in which the position encoding is a part you can swap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm, PatchDropoutWithIndices, get_norm_layer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor

from visionpe.backbones.shared.arguments import (
    check_arguments,
    check_blocks,
    check_image_size,
    check_keywords,
    keywords_of,
)
from visionpe.backbones.shared.block import EncodedBlock, run_block, tokens_of
from visionpe.backbones.shared.images import check_mask
from visionpe.backbones.shared.loading import LoadsPublished, measure_from
from visionpe.backbones.shared.mixed_images import Batching, is_mixed
from visionpe.backbones.shared.mixed_sizes import TakesMixedSizes
from visionpe.backbones.shared.patches import AdaptivePatchEmbed
from visionpe.backbones.shared.talking_heads import TalkingHeadsAttention
from visionpe.backbones.vit.features import GivesFeatures
from visionpe.backbones.vit.jax_weights import read_jax
from visionpe.backbones.vit.views import as_images, as_tokens, full_grid
from visionpe.backbones.vit.weights import convert
from visionpe.cameras import Cameras
from visionpe.checks import check_choice, check_flag
from visionpe.composition import Composition
from visionpe.grid import Grid
from visionpe.mixed import MixedGrid
from visionpe.registry import Spec, create_encodings
from visionpe.utils.weight_files import StateDict

# timm's own, where a constructor is given none.
SIZE = {"embed_dim": 768, "num_heads": 12, "depth": 12}
POOLS = ("avg", "avgmax", "max", "map", "prr", "token", "")


def check_pool(global_pool: Any, class_token: bool) -> None:
    """Refuse pooling that is unknown, or needs a class token where there is none.

    Raises:
        ValueError: Names ``global_pool``.
    """
    check_choice("global_pool", global_pool, POOLS)
    if global_pool == "token" and not class_token:
        raise ValueError("global_pool='token' needs a class token; allowed: avg, max, avgmax, map, prr or empty")


for _node in ("as_images", "full_grid", "as_tokens"):  # of a graph: there neither sizes nor cameras are known
    torch.fx.wrap(_node)


class VisionTransformer(TakesMixedSizes, GivesFeatures, LoadsPublished, TimmVisionTransformer):
    """timm's ViT with any position encoding, at any height and width that the patch divides.

    Everything but the positions is timm's: the constructor's keywords, pooling, head, feature extraction. Prefix
    tokens (class, register) get no position.

    Args:
        pos_encoding: A name (``"rope_mixed"``), several (``"rope_mixed+ape"``), a dict with options
            (``{"name": "rope_mixed", "theta": 10}``), or a list of those.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        patch_size: In pixels.
        init_values: Initial LayerScale; 0 for none. Default 1e-4, as in DeiT-III and RoPE-ViT.
        norm_eps: What all norms add to variances; default that of ``norm_layer``, 1e-6.
        talking_heads: Mix logits and weights across heads, as MiniViT does.
        constant_drop_path: Stochastic depth is ``drop_path_rate`` in every block, as in DeiT-III and RoPE-ViT, and does
            not grow from 0 at the first to it at the last.
        kwargs: timm's own (``embed_dim depth num_heads mlp_ratio num_classes class_token reg_tokens global_pool
            qk_norm drop_path_rate patch_drop_rate dynamic_img_pad ...``).

    Raises:
        ValueError: If ``pos_encoding`` is unknown, cannot work here, or an option is not one of the encoding's.
    """

    family = "ViT"
    drops_by_image = True

    def __init__(
        self,
        *,
        pos_encoding: Spec = "none",
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        init_values: float = 1e-4,
        norm_eps: float | None = None,
        talking_heads: bool = False,
        constant_drop_path: bool = False,
        patch_drop_rate: float = 0.0,
        embed_layer: Callable[..., Any] = AdaptivePatchEmbed,
        block_fn: Callable[..., Any] = EncodedBlock,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("pos_embed", None) is not None:
            raise ValueError(
                "pos_embed is timm's keyword; here positions are chosen by pos_encoding='ape' and the like"
            )
        check_arguments({"norm_eps": norm_eps, "norm_layer": kwargs.get("norm_layer")})
        if norm_eps is not None:
            kwargs["norm_layer"] = partial(get_norm_layer(kwargs.get("norm_layer")) or LayerNorm, eps=norm_eps)
        if talking_heads:
            block_fn = partial(block_fn, attention=TalkingHeadsAttention)
        for moot in ("dynamic_img_size", "no_embed_class"):  # always so here
            kwargs.pop(moot, None)
        check_flag("constant_drop_path", constant_drop_path)
        self._check(img_size, patch_size, init_values=init_values, patch_drop_rate=patch_drop_rate, **kwargs)
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            init_values=init_values,
            pos_embed="none",
            no_embed_class=True,
            dynamic_img_size=True,
            embed_layer=embed_layer,
            block_fn=block_fn,
            **kwargs,
        )
        for block in self.blocks if constant_drop_path and kwargs.get("drop_path_rate") else ():
            block.drop_path1, block.drop_path2 = (DropPath(kwargs["drop_path_rate"]) for _ in range(2))
        self.num_heads, self.depth = self.blocks[0].attn.num_heads, len(self.blocks)
        super().set_trained_size(self.patch_embed.img_size, self.patch_embed.patch_size)
        parts = create_encodings(
            pos_encoding,
            dim=self.embed_dim,
            num_heads=self.num_heads,
            depth=self.depth,
            grid_size=self.patch_embed.grid_size,
            **({} if self.num_prefix_tokens else {"prefix_slots": 0}),
            device=kwargs.get("device"),
            dtype=kwargs.get("dtype"),
        )
        self.pos_encoding = Composition(parts)
        for part in parts if talking_heads else ():
            if part.structure == "axial":
                raise ValueError(
                    f"pos_encoding={part.spelling!r} attends along rows, then columns, where talking_heads=True finds "
                    "no logits of all pairs; allowed: False"
                )
        if patch_drop_rate:
            for part in parts:
                if not part.takes_coords:
                    raise ValueError(
                        f"pos_encoding={part.name!r} needs the full map of tokens, patch_drop_rate={patch_drop_rate} "
                        "leaves holes in it; allowed: 0"
                    )
            self.patch_drop = PatchDropoutWithIndices(patch_drop_rate, num_prefix_tokens=self.num_prefix_tokens)

    def _check(self, img_size: Any, patch_size: Any, **given: Any) -> None:
        """Refuse what timm's constructor would take, or stumble over."""
        check_keywords(type(self).__name__, given, keywords_of(type(self), TimmVisionTransformer))
        check_arguments(given)
        check_image_size(img_size, patch_size)
        dim, heads, depth = (given.get(name, default) for name, default in SIZE.items())
        if dim % heads:
            raise ValueError(f"num_heads={heads} must divide embed_dim={dim}")
        check_blocks([dim], [depth], given.get("mlp_ratio", 4.0))
        check_pool(given.get("global_pool", "token"), given.get("class_token", True))

    def _embed(self, x: Tensor, cameras: Cameras | None = None) -> tuple[Tensor, Grid]:
        """Images ``(B, C, H, W)``, or views ``(B, V, C, H, W)``, to tokens ``(B, N, dim)`` and where they stand."""
        x = self.patch_embed(as_images(x, cameras))  # (B, height, width, dim)
        grid = full_grid(x, self.num_prefix_tokens, cameras)
        x = self.pos_encoding.add(as_tokens(x, cameras), grid)
        prefix = [t.expand(x.shape[0], -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        x = self.pos_drop(torch.cat([*prefix, x], dim=1) if prefix else x)
        if isinstance(self.patch_drop, PatchDropoutWithIndices):
            x, kept = self.patch_drop(x)
            if kept is not None:
                grid = grid.kept(kept)
        return self.norm_pre(x), grid

    def _block(self, index: int, x: Any, grid: Grid | MixedGrid, attn_mask: Tensor | None) -> Any:
        """Tokens to tokens; both with what goes beside them from block to block, if the encoding has something."""
        x, *beside = x if isinstance(x, tuple) else (x,)
        arguments = (x, self.pos_encoding, grid, attn_mask, *beside)
        x = run_block(self.blocks[index], index, *arguments, checkpointed=self.grad_checkpointing)
        if not self.pos_encoding.carries:
            return self.pos_encoding.refine(x, grid, layer=index)
        count = len(grid.parts) if isinstance(grid, MixedGrid) else 1
        return (self.pos_encoding.refine(x[0], grid, layer=index), *(x[1 + i] for i in range(count)))

    def forward_features(
        self, x: Any, attn_mask: Tensor | None = None, *, cameras: Cameras | None = None, **mixed: Any
    ) -> Any:
        """Images ``(B, C, H, W)`` to normed tokens ``(B, N, dim)``, prefix tokens first; see :meth:`forward`.

        Of images of several sizes a list with ``(N, dim)`` for each.
        """
        if cameras is None:
            x, grid = self._tokens(x, attn_mask, **mixed)
        else:
            x, grid = self._embed(x, cameras)
            check_mask(attn_mask, x)
        for index in range(len(self.blocks)):
            x = self._block(index, x, grid, attn_mask)
        return self._ended(tokens_of(x), grid)

    def _final(self, x: Tensor) -> Tensor:
        """What follows the last block."""
        return self.norm(x)

    def forward(
        self,
        x: Any,
        attn_mask: Tensor | None = None,
        cameras: Cameras | None = None,  # by place too: the older exporter to ONNX gives all of them so
        patch_coord: Tensor | None = None,
        patch_valid: Tensor | None = None,
        batching: Batching = "auto",
    ) -> Tensor:
        """Images to logits ``(B, num_classes)``.

        Args:
            x: ``(B, C, H, W)``, or images of several sizes; with ``cameras`` the views of each scene,
                ``(B, V, C, H, W)``: their tokens all attend to each other, one view after the other behind one set of
                prefix tokens.
            attn_mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``.
            cameras: What saw the views, for encodings that read it (``prope gta rays``); others find every token at its
                place in its own view.
            patch_coord, patch_valid, batching: Of images of several sizes, see
                :meth:`~visionpe.backbones.shared.mixed_sizes.TakesMixedSizes.forward`.

        Raises:
            TypeError: If ``cameras`` are none.
            ValueError: If there are other views or scenes than cameras.
        """
        if cameras is None:
            return super().forward(x, attn_mask, patch_coord=patch_coord, patch_valid=patch_valid, batching=batching)
        if is_mixed(x):
            raise ValueError("cameras: images of several sizes are no views of a scene; allowed: (B, V, C, H, W)")
        return self.forward_head(self.forward_features(x, attn_mask, cameras=cameras))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, or none with 0.

        Raises:
            ValueError: If ``global_pool`` is unknown or needs what the model was not built with.
        """
        check_arguments({"num_classes": num_classes})
        check_pool(self.global_pool if global_pool is None else global_pool, self.cls_token is not None)
        if global_pool in ("map", "prr") and self.attn_pool is None:
            raise ValueError(f"global_pool={global_pool!r} has layers of its own; allowed: at construction alone")
        super().reset_classifier(num_classes, global_pool)

    def set_input_size(
        self, img_size: tuple[int, int] | None = None, patch_size: tuple[int, int] | None = None
    ) -> None:
        """Change the nominal size and the patch; tables per position are resized, policies keep the trained size."""
        own: Any = self.patch_embed
        image, patch = check_image_size(
            own.img_size if img_size is None else img_size, own.patch_size if patch_size is None else patch_size
        )
        super().set_input_size(img_size=image, patch_size=None if patch_size is None else patch)
        self._set_input_grid(self.patch_embed.grid_size)

    def _set_input_grid(self, grid_size: tuple[int, int]) -> None:
        for part in self.pos_encoding.parts:
            part.set_input_grid(grid_size)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone."""
        return {"cls_token", "reg_token", *(f"pos_encoding.{k}" for k in self.pos_encoding.no_weight_decay())}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions belong to the stem."""
        return {
            "stem": r"^cls_token|reg_token|pos_encoding|patch_embed|norm_pre",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """Load an original JAX checkpoint (``.npz``); its kernel is adapted to other input channels."""
        self.load_state_dict(read_jax(checkpoint_path, prefix, self, img_size=self.patch_embed.img_size))

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        super().set_trained_size(img_size, patch_size)
        measure_from(self.pos_encoding, [s // p for s, p in zip(img_size, patch_size)])
        if isinstance(self.patch_embed, AdaptivePatchEmbed):
            self.patch_embed.set_trained_size(img_size, patch_size)

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)
