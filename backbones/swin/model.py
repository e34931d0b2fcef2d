"""Swin: attention in windows that move from block to block, with any position encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from timm.layers import calculate_drop_path_rates, to_2tuple
from torch import nn

from visionpe.backbones.shared.arguments import (
    MAX_WINDOW,
    check_arguments,
    check_blocks,
    check_image_size,
    check_stages,
)
from visionpe.backbones.shared.loading import LoadsPublished, measure_from
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.pyramid import Pyramid
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.windows import Pair
from visionpe.backbones.swin.stage import Patches, PatchMerging, SwinStage, WindowFit, WindowPolicy
from visionpe.backbones.swin.weights import convert
from visionpe.checks import check_choice, check_pair, shown
from visionpe.registry import Spec
from visionpe.utils.weight_files import StateDict

WindowSize = int | tuple[int, int] | Sequence[int | tuple[int, int]]


class SwinTransformer(Pyramid):
    """Swin with any position encoding, at any height and width.

    Attention sees the tokens of a window alone, so encodings inside it are told positions in the window. Maps that the
    windows do not divide are padded and masked. The published files load: timm's, the original ones, and RoPE-Swin's.

    Source: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", arXiv 2103.14030, section 3.

    Args:
        pos_encoding: See :func:`visionpe.create_encoding`.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        patch_size: Pixels per token.
        embed_dim: Width of the first stage, doubled from stage to stage.
        depths, num_heads: Of the stages.
        window_size: Tokens: a number or (height, width) for all stages, or one of these for each. Default 7.
        window_policy: At another size, ``keep`` the window or ``grow`` it with the map, rounded along each axis, as
            the authors of RoPE-Swin do. Encodings meet a grown window with their own policy.
        window_fit: On a map no larger than a window. ``per_axis``: an axis no longer than the window does not shift
            (timm). ``shorter_side``: where the shorter side is no longer, it becomes the side of the windows, and
            neither axis shifts (the original code and RoPE-Swin's; for square windows). Default: ``per_axis`` until a
            file in the original layout is loaded. It is no part of the state dict.
        drop_path_rate: Stochastic depth at the last block, growing from 0 at the first.
        options: Further keywords: ``in_chans num_classes global_pool mlp_ratio qkv_bias drop_rate proj_drop_rate
            attn_drop_rate feature_norms norm_layer act_layer device dtype``, see
            :class:`~visionpe.backbones.shared.options.PyramidOptions`.

    Raises:
        ValueError: If lists differ in length, heads do not divide the width, a window is not positive,
            ``window_policy`` or ``window_fit`` is unknown, or the encoding cannot work here.
    """

    family = "Swin"

    def __init__(
        self,
        *,
        pos_encoding: Spec = "rpb",
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: WindowSize | None = None,
        window_policy: WindowPolicy = "keep",
        window_fit: WindowFit | None = None,
        drop_path_rate: float = 0.1,
        **options: Any,
    ) -> None:
        shared = PyramidOptions.read(type(self), options)
        check_arguments({"embed_dim": embed_dim, "drop_path_rate": drop_path_rate})
        check_image_size(img_size, patch_size)
        depths, num_heads = check_stages(depths=depths, num_heads=num_heads)
        stages = len(depths)
        dims = [embed_dim * 2**i for i in range(stages)]
        check_blocks(dims, depths, shared.mlp_ratio)
        for i, heads in enumerate(num_heads):
            if heads < 1 or embed_dim * 2**i % heads:
                raise ValueError(f"num_heads={heads} of stage {i} must divide its width, {embed_dim * 2**i}")
        check_choice("window_policy", window_policy, WindowPolicy)
        check_choice("window_fit", window_fit or "per_axis", WindowFit)
        windows = _per_stage(7 if window_size is None else window_size, stages)
        stem = Patches(
            img_size,
            patch_size,
            shared.in_chans,
            embed_dim,
            norm_layer=shared.norm_layer,
            output_fmt="NHWC",
            strict_img_size=False,
            dynamic_img_pad=True,
            **shared.factory,
        )
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        built, encodings = [], []
        for i, size in enumerate(_map_sizes(stem, to_2tuple(img_size), stages)):
            context: dict[str, Any] = {"dim": dims[i], "num_heads": num_heads[i], "depth": depths[i]}
            kinds = {"window": WindowKind(**context, grid_size=windows[i])}
            encodings.append(
                partial(
                    StageEncoding,
                    pos_encoding,
                    **context,
                    grid_size=size,
                    kinds=kinds,
                    first=i == 0,
                    attention_window=windows[i],
                    **shared.factory,
                )
            )
            built.append(
                SwinStage(
                    PatchMerging(dims[i - 1], dims[i], shared.norm_layer, **shared.factory) if i else nn.Identity(),
                    [shared.block(dims[i], num_heads[i], drop_path=rates[i][j], depth=j) for j in range(depths[i])],
                    nn.Identity(),
                    grid_size=size,
                    window_size=windows[i],
                    window_policy=window_policy,
                    window_fit=window_fit or "per_axis",
                )
            )
        super().__init__(
            stem,
            built,
            encodings,
            dims=dims,
            depths=depths,
            reductions=[max(stem.patch_size) * 2**i for i in range(stages)],
            options=shared,
        )
        LoadsPublished.set_trained_size(self, stem.img_size, stem.patch_size)
        self.window_img_size: Pair = stem.img_size
        self.window_is_chosen, self.window_fit_is_chosen = window_size is not None, window_fit is not None

    def set_window_policy(self, window_policy: WindowPolicy) -> None:
        """Choose the windows at sizes other than the trained one; see the constructor.

        Raises:
            ValueError: If ``window_policy`` is unknown.
        """
        check_choice("window_policy", window_policy, WindowPolicy)
        for stage in self.stages:
            stage.window_policy = window_policy

    def set_window_fit(self, window_fit: WindowFit, *, chosen: bool = True) -> None:
        """Choose how windows fit a map that is no larger; see the constructor.

        Args:
            window_fit: ``per_axis`` or ``shorter_side``.
            chosen: It outlives the loading of published files.

        Raises:
            ValueError: If ``window_fit`` is unknown.
        """
        check_choice("window_fit", window_fit, WindowFit)
        for stage in self.stages:
            stage.window_fit = window_fit
        self.window_fit_is_chosen = self.window_fit_is_chosen or chosen

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
        window_size: WindowSize | None = None,
    ) -> None:
        """Change the nominal size; tables per position are resized, policies keep the trained size.

        Args:
            img_size: Height and width, pixels.
            patch_size: Pixels per token.
            window_size: At that size, see the constructor; ``window_policy`` measures from these then. Default: as
                ``window_policy`` says.

        Raises:
            ValueError: If a window is not positive or there is not one for each stage.
        """
        stages: list[Any] = list(self.stages)
        windows = None if window_size is None else _per_stage(window_size, len(stages))
        stem: Any = self.patch_embed
        image, patch = check_image_size(
            stem.img_size if img_size is None else img_size, stem.patch_size if patch_size is None else patch_size
        )
        stem.set_input_size(image, None if patch_size is None else patch)
        for i, info in enumerate(self.feature_info):
            info["reduction"] = max(stem.patch_size) * 2**i
        for i, size in enumerate(_map_sizes(stem, stem.img_size, len(stages))):
            if windows is not None:
                stages[i].grid_size, stages[i].window_size = size, windows[i]
                self.window_is_chosen, self.window_img_size = True, stem.img_size
            stages[i].pos_encoding.set_input_grid(size, {"window": stages[i].window(size)})
        self.record_size(stem.img_size, patch_size=patch_size, window_size=window_size)

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Let policies measure from another size, pixels: windows unless chosen, patches, and encodings of the map."""
        super().set_trained_size(img_size, patch_size)
        self.patch_embed.set_trained_size(img_size, patch_size)
        if not self.window_is_chosen:
            self.measure_windows_from(img_size, patch_size)
        for stage, size in zip(self.stages, _halved(img_size, patch_size)):
            measure_from(stage.pos_encoding.map, size)

    def measure_windows_from(self, img_size: tuple[int, int], patch_size: tuple[int, int] | None = None) -> None:
        """Let windows that grow with the map measure from another size, pixels."""
        self.window_img_size = img_size
        for stage, size in zip(self.stages, _halved(img_size, patch_size or self.patch_embed.patch_size)):
            stage.grid_size = size

    def saved_arguments(self) -> dict[str, Any]:
        stage: Any = self.stages[0]
        own = {"window_policy": (stage.window_policy, "keep"), "window_fit": (stage.window_fit, "per_axis")}
        changed = {key: value for key, (value, default) in own.items() if value != default}
        return {**super().saved_arguments(), "window_img_size": self.window_img_size, **changed}

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)


def _halved(img_size: Pair, patch_size: Pair) -> Iterator[Pair]:
    """Height and width of the map of stage after stage, tokens."""
    size = -(-img_size[0] // patch_size[0]), -(-img_size[1] // patch_size[1])
    while True:
        yield size
        size = -(-size[0] // 2), -(-size[1] // 2)


def _map_sizes(stem: Any, img_size: tuple[int, int], stages: int) -> list[Pair]:
    """Height and width of the map of every stage, tokens."""
    sizes = [tuple(stem.dynamic_feat_size(img_size))]
    for _ in range(stages - 1):
        sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
    return sizes


def _per_stage(window_size: WindowSize, stages: int) -> list[Pair]:
    """Height and width of the windows of every stage."""
    given: Any = window_size
    try:
        one = isinstance(given, int) or (len(given) == 2 and all(isinstance(n, int) for n in given))
        windows = [check_pair("window_size", window, 1, MAX_WINDOW) for window in ([given] * stages if one else given)]
    except (TypeError, ValueError):
        windows = []
    if len(windows) != stages:
        raise ValueError(
            f"window_size={shown(given)} must be a positive number or (height, width), or one of these for each of the "
            f"{stages} stages; allowed: whole numbers from 1 to {MAX_WINDOW}"
        )
    return windows
