"""CSWin: attention in stripes, half of the heads along columns and half along rows, with any position encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from visionpe.backbones.cswin.layers import ConvEmbed, ConvMerge
from visionpe.backbones.cswin.stage import CSWinStage, StripePadding, StripePolicy, published_stripes
from visionpe.backbones.cswin.weights import convert
from visionpe.backbones.shared.arguments import (
    MAX_DIM,
    MAX_PATCH,
    check_arguments,
    check_blocks,
    check_image_size,
    check_stages,
)
from visionpe.backbones.shared.loading import measure_from
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.pyramid import Pyramid
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.checks import check_choice, check_count, check_counts, shown
from visionpe.registry import Spec
from visionpe.utils.weight_files import StateDict


class CSWinTransformer(Pyramid):
    """CSWin for classification and for dense prediction, with any position encoding, at any height and width.

    Half of the heads attend in vertical stripes (as high as the map, some columns wide), half in horizontal ones; in
    the last stage all attend in the whole map. Encodings see positions inside a stripe: its length follows the map.

    The published classification files load, and those of the published backbone for dense prediction, which has a norm
    for each feature (``feature_norms``), pads unmasked (``padding="values"``), and widens its stages as it adds heads:
    for the large size that is ``embed_dim=(144, 288, 576, 576)``. A classification file in a model with feature norms
    leaves these at identity, but for the last, which is its final norm.

    Source: "CSWin Transformer", arXiv 2107.00652, sections 3.1 to 3.3.

    Args:
        pos_encoding: See :func:`visionpe.create_encoding`. What acts inside attention is built for each kind of
            stripe, with half of the heads.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        patch_size: Pixels per token.
        embed_dim: Width of the first stage, doubled from stage to stage; or the widths of all.
        depths, num_heads: Of the stages.
        stripe_widths: Of the stages, tokens. A stage of a classifier whose trained map is as wide as its stripe
            attends in the whole map, as the last does whatever its width here. Default: as published for ``img_size``
            (1-2-7-7 at 224, 1-2-12-12 at 384), but 1-2-7-7 with ``feature_norms``.
        stripe_policy: At another size, ``keep`` the width, as the published backbone for dense prediction does, or
            ``grow`` it with the map where it is at least half of it, as between the published 224 and 384.
        drop_path_rate: Stochastic depth at the last block, growing from 0 at the first.
        padding: Of stripes that do not divide the map: ``mask``, so that it changes nothing, or ``values``, zero keys
            and values that attention sees. Default: ``mask`` until a file of the published backbone for dense
            prediction is loaded. It is no part of the state dict.
        options: Further keywords: ``in_chans num_classes global_pool mlp_ratio qkv_bias drop_rate proj_drop_rate
            attn_drop_rate feature_norms norm_layer act_layer device dtype``, see
            :class:`~visionpe.backbones.shared.options.PyramidOptions`.

    Raises:
        ValueError: If the lists differ in length, heads are odd or do not divide the width, a width is not positive,
            ``stripe_policy`` or ``padding`` is unknown, or the encoding cannot work here.
    """

    family = "CSWin"

    def __init__(
        self,
        *,
        pos_encoding: Spec = "lepe",
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        embed_dim: int | Sequence[int] = 64,
        depths: Sequence[int] = (1, 2, 21, 1),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        stripe_widths: Sequence[int] | None = None,
        stripe_policy: StripePolicy = "keep",
        drop_path_rate: float = 0.0,
        padding: StripePadding | None = None,
        **options: Any,
    ) -> None:
        shared = PyramidOptions.read(type(self), options)
        check_arguments({"drop_path_rate": drop_path_rate})
        image, (patch_size, _) = check_image_size(img_size, check_count("patch_size", patch_size, 1, MAX_PATCH))
        (depths,) = check_stages(depths=depths)
        stages = len(depths)
        dims = embed_dim if isinstance(embed_dim, Sequence) else (check_count("embed_dim", embed_dim),) * stages
        dims = dims if isinstance(embed_dim, Sequence) else [dim * 2**i for i, dim in enumerate(dims)]
        chosen = stripe_widths is not None
        if stripe_widths is None:
            stripe_widths = published_stripes((224, 224) if shared.feature_norms else image, stages)
        lists = {"embed_dim": dims, "num_heads": num_heads, "stripe_widths": stripe_widths}
        dims, num_heads, stripe_widths = (_each(name, values, depths) for name, values in lists.items())
        check_blocks(dims, depths, shared.mlp_ratio)
        check_choice("stripe_policy", stripe_policy, StripePolicy)
        check_choice("padding", padding or "mask", StripePadding)

        stem = ConvEmbed(shared.in_chans, dims[0], patch_size, shared.norm_layer, **shared.factory)
        sizes = [stem.grid_size(image)]
        for _ in depths[1:]:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(list(depths))
        built, encodings = [], []
        for i, (dim, depth, heads, width, size) in enumerate(zip(dims, depths, num_heads, stripe_widths, sizes)):
            whole = i == stages - 1 or (chosen and not shared.feature_norms and size == (width, width))
            if dim % heads or (heads % 2 and not whole):
                raise ValueError(f"num_heads={heads} of stage {i} must be even and divide its width, {dim}")
            shapes = {"full": size} if whole else {"vertical": (size[0], width), "horizontal": (width, size[1])}
            kinds = {k: WindowKind(dim // len(shapes), heads // len(shapes), depth, s) for k, s in shapes.items()}
            context = {"dim": dim, "num_heads": heads, "depth": depth, "grid_size": size, "kinds": kinds}
            encodings.append(partial(StageEncoding, pos_encoding, **context, first=i == 0, **shared.factory))
            built.append(
                CSWinStage(
                    ConvMerge(dims[i - 1], dim, shared.norm_layer, **shared.factory) if i else nn.Identity(),
                    [
                        shared.block(dim, heads, drop_path=float(rates[i][j]), depth=j, padding=padding or "mask")
                        for j in range(depth)
                    ],
                    nn.Identity(),
                    grid_size=size,
                    stripe_width=None if whole else width,
                    stripe_policy=stripe_policy,
                    padding=padding or "mask",
                )
            )
        super().__init__(
            stem,
            built,
            encodings,
            dims=dims,
            depths=depths,
            reductions=[patch_size * 2**i for i in range(stages)],
            options=shared,
        )
        self.padding_is_chosen, self.built_stripes = padding is not None, tuple(stripe_widths)
        super().set_trained_size(image, (patch_size, patch_size))
        self.window_img_size = image

    @property
    def padding(self) -> StripePadding:
        """What the padding of stripes holds."""
        first: Any = self.stages[0]
        return first.padding

    def set_padding(self, padding: StripePadding) -> None:
        """Choose what the padding of stripes holds; see the constructor."""
        check_choice("padding", padding, StripePadding)
        self._set_padding(padding)
        self.padding_is_chosen = True

    def _set_padding(self, padding: StripePadding) -> None:
        stages: Any = self.stages
        for stage in stages:
            stage.padding = padding
            for block in stage.blocks:
                block.attn.padding = padding

    def set_stripe_policy(self, stripe_policy: StripePolicy) -> None:
        """Choose the width of the stripes at sizes other than the trained one; see the constructor."""
        check_choice("stripe_policy", stripe_policy, StripePolicy)
        stages: Any = self.stages
        for stage in stages:
            stage.stripe_policy = stripe_policy

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, stripe_widths: Sequence[int] | None = None
    ) -> None:
        """Change the nominal size; tables per position are resized, policies keep the trained size.

        Args:
            img_size: Height and width, pixels.
            stripe_widths: Of the stages at that size, tokens; ``stripe_policy`` measures from these then. Stages that
                attend in the whole map go on doing so.

        Raises:
            ValueError: If there is not one positive width for each stage.
        """
        stages: list[Any] = list(self.stages)
        stem: Any = self.patch_embed
        if stripe_widths is not None:
            stripe_widths = _each("stripe_widths", stripe_widths, self.depths)
        if img_size is not None:
            img_size, _ = check_image_size(img_size, stem.patch_size)
        size = None if img_size is None else stem.grid_size(img_size)
        for i, stage in enumerate(stages):
            if size is not None and i:
                size = (-(-size[0] // 2), -(-size[1] // 2))
            if stripe_widths is not None and stage.stripe_width is not None:
                self.window_img_size = self.window_img_size if img_size is None else img_size
                stage.grid_size, stage.stripe_width = size or stage.grid_size, stripe_widths[i]
            nominal = size or stage.grid_size
            windows = {kind: its.window for kind, its in stage.windows(nominal).items()}
            stage.pos_encoding.set_input_grid(nominal, windows)
        if img_size is not None:
            self.record_size(img_size)
        if stripe_widths is not None or img_size is not None:  # their default follows the size
            self._model_args |= {"stripe_widths": [stage.stripe_width or min(stage.grid_size) for stage in stages]}

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Let policies of encodings measure from another size, pixels; stripes stay as they were chosen."""
        stem: Any = self.patch_embed
        check_image_size(img_size, stem.patch_size, "trained_size")
        super().set_trained_size(img_size, (stem.patch_size, stem.patch_size))  # kernels are larger than a token
        for stage, size in self._stages_at(img_size):
            measure_from(stage.pos_encoding.map, size)
            for kind, windows in stage.windows(size).items():
                measure_from(stage.pos_encoding.inside[kind], windows.window)

    def measure_windows_from(self, img_size: tuple[int, int]) -> None:
        """Let stripes that grow with the map measure from another size, pixels."""
        self.window_img_size = img_size
        for stage, size in self._stages_at(img_size):
            stage.grid_size = size

    def _stages_at(self, img_size: tuple[int, int]) -> Iterator[tuple[Any, tuple[int, int]]]:
        """Every stage, and height and width of its map at a size in pixels, tokens."""
        stem: Any = self.patch_embed
        size = stem.grid_size(img_size)
        for stage in self.stages:
            yield stage, size
            size = (-(-size[0] // 2), -(-size[1] // 2))

    def saved_arguments(self) -> dict[str, Any]:
        stage: Any = self.stages[0]
        own = {"stripe_policy": (stage.stripe_policy, "keep"), "padding": (stage.padding, "mask")}
        changed = {key: value for key, (value, default) in own.items() if value != default}
        chosen = "stripe_widths" in self.__dict__.get("given_arguments", {})  # else they follow the size
        if not chosen and self.norms is not None:  # or that of weights, which a saved model no longer has
            changed["stripe_widths"] = self.built_stripes
        return super().saved_arguments() | changed | ({"window_img_size": self.window_img_size} if chosen else {})

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)


def _each(name: str, values: Any, depths: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the stages."""
    try:
        return check_counts(name, values, len(depths), 1, MAX_DIM)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{name}={shown(values)} must be {len(depths)} positive numbers, as depths={tuple(depths)}; allowed: 1 to "
            f"{MAX_DIM}"
        ) from None
