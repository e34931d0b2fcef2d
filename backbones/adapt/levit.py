"""timm's ``Levit``: tables over absolute offsets, in the stages and in the attention that shrinks the map."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from math import gcd, isqrt
from typing import Any

import torch
from timm.models.levit import Levit, LevitDistilled, Stem8, Stem16
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.levit_blocks import ON_MAPS
from visionpe.backbones.adapt.published_layouts import renamed
from visionpe.backbones.adapt.staged import AdaptedStages
from visionpe.backbones.shared.images import check_images
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind, check_widths
from visionpe.backbones.shared.windows import Pair
from visionpe.utils.errors import MisfitError

TABLE = "attention_biases"
TABLE_KEY = re.compile(rf"stages\.(\d+)\.(?:downsample\.attn_downsample|blocks\.(\d+)\.attn)\.{TABLE}")

# Of the authors' layers: timm's.
INSIDE_MLP = {"0": "ln1", "2": "ln2"}
LAYERS = {".c.": ".linear.", ".l.": ".linear.", ".proj.1": ".proj.ln", ".q.1": ".q.ln"}
LAYER = re.compile("|".join(map(re.escape, LAYERS)))


def _as_map(table: Tensor, size: Pair) -> Tensor:
    """``(heads, H * W)`` to ``(heads, H, W)``, of the size of the model or of a square map.

    Raises:
        RuntimeError: If it is of neither.
    """
    side = isqrt(table.shape[-1])
    for shape in (tuple(size), (side, side)):
        if shape[0] * shape[1] == table.shape[-1]:
            return table.unflatten(-1, shape)
    raise MisfitError(
        f"{TABLE} of {table.shape[-1]} offsets is neither of a square map nor of {size[0]} x {size[1]} tokens; if it "
        "has another shape, tell it by img_size"
    )


def _check_values(encoding: StageEncoding, attention: Any) -> None:
    """Refuse what acts on values where these are wider than the keys by which the encodings were built."""
    for part in encoding.parts if attention.val_dim != attention.key_dim else ():
        if {"value", "output", "mix"} & set(part.sites()):
            raise ValueError(
                f"pos_encoding={part.spelling!r} acts on values, which are {attention.val_dim} channels wide a head "
                f"here, where keys have {attention.key_dim}; allowed: what acts on tokens, queries, keys or logits"
            )


class LevitPositions(AdaptedStages):
    """Mixin of models: encodings of the stages, whose modules work on maps ``(B, height, width, C)``."""

    position_keys = (f"stages.*.{TABLE}",)
    default_out_indices = (0, 1, 2)
    sees_images = "stem"

    # Of the model.
    stem: Any
    stages: Any
    embed_dim: Sequence[int]
    in_chans: int
    use_conv: bool
    grad_checkpointing: bool

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        return [{"name": "attention_bias"}]

    def take_over(self, spec: list[Any]) -> None:
        for module in self.stages.modules():
            if hasattr(module, TABLE):
                del module.attention_biases, module.attention_bias_idxs
            module.__class__ = ON_MAPS.get(type(module), type(module))
        self.pos_encoding = nn.ModuleList(self._encoding(spec, index) for index in range(len(self.stages)))

    def _encoding(self, spec: list[Any], index: int) -> StageEncoding:
        stage, dim = self.stages[index], self.embed_dim[index]
        for layer, block in enumerate(stage.blocks):
            block.layer = layer
        kinds = {
            kind: WindowKind(
                dim=its[0].key_attn_dim,
                num_heads=its[0].num_heads,
                depth=len(its),
                grid_size=its[0].resolution,
                pools=kind == "entering",
            )
            for kind, its in stage.attentions().items()
        }
        own = stage.blocks[-1].attn
        weight = own.qkv.linear.weight
        encoding = StageEncoding(
            spec,
            dim=dim,
            num_heads=dim // gcd(dim, own.key_dim),  # heads together are narrower than tokens
            depth=len(stage.blocks),
            grid_size=own.resolution,
            kinds=kinds,
            first=index == 0,
            device=weight.device,
            dtype=weight.dtype,
        )
        check_widths(encoding, inputs=not stage.shrinks)
        for its in stage.attentions().values():
            _check_values(encoding, its[0])
        return encoding

    def from_published(self, state: State) -> State:
        if "patch_embed.0.c.weight" not in state:
            return state
        beginnings = {f"patch_embed.{2 * i}.": f"stem.conv{i + 1}." for i in range(4)}
        number = 0  # of the authors' blocks, one for each attention and each MLP
        for index, stage in enumerate(self.stages):
            shrinking = [("", "downsample.", "attn_downsample")] if stage.shrinks else []
            for mark, place, attention in [
                *shrinking,
                *(("m.", f"blocks.{i}.", "attn") for i in range(len(stage.blocks))),
            ]:
                beginnings[f"blocks.{number}.{mark}"] = f"stages.{index}.{place}{attention}."
                for layer, own in INSIDE_MLP.items():
                    beginnings[f"blocks.{number + 1}.m.{layer}."] = f"stages.{index}.{place}mlp.{own}."
                number += 2
        out = {renamed(key, beginnings): value for key, value in state.items() if not key.endswith("_bias_idxs")}
        return {LAYER.sub(lambda found: LAYERS[found[0]], key): value for key, value in out.items()}

    def positions(self, state: State) -> dict[str, Tensor]:
        tables: dict[tuple[int, str], dict[int, Tensor]] = defaultdict(dict)
        for key, value in state.items():
            if (match := TABLE_KEY.fullmatch(key)) and int(match[1]) < len(self.stages):
                kind = "whole" if match[2] else "entering"
                tables[int(match[1]), kind][int(match[2] or 0)] = value
        return {
            f"pos_encoding.{stage}.inside.{kind}.attention_bias.table": torch.stack(
                [_as_map(its[layer], self.stages[stage].attentions()[kind][0].resolution) for layer in sorted(its)]
            )
            for (stage, kind), its in tables.items()
        }

    def begin(self, x: Tensor) -> Tensor:
        stem = self.stem
        check_images(x, self.in_chans, stem.conv1.linear if isinstance(stem, (Stem8, Stem16)) else stem)
        x = stem(x).permute(0, 2, 3, 1)
        # Sums keep the order in memory of the map, which every linear layer of the stage would have to copy.
        return x if self.use_conv else x.contiguous()

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        return self.stages[index](x, self.pos_encoding[index], self.grad_checkpointing)

    def as_features(self, x: Tensor, index: int) -> Tensor:
        """Tokens ``(B, N, dim)``, or in models with convolutions the map ``(B, dim, height, width)``."""
        return x.permute(0, 3, 1, 2) if self.use_conv else x.flatten(1, 2)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions belong to the beginning of their stage."""
        groups = super().group_matcher(coarse)
        if coarse:
            return {**groups, "blocks": r"^(?:stages|pos_encoding)\.(\d+)"}
        return {**groups, "blocks": [*groups["blocks"], (r"^pos_encoding\.(\d+)", (0,))]}


@adapts(Levit)
class AdaptedLevit(LevitPositions, Levit):
    """A table over absolute offsets in every attention."""


@adapts(LevitDistilled)
class AdaptedLevitDistilled(LevitPositions, LevitDistilled):
    """The same, with a classifier besides that learns from a teacher."""
