"""timm's ``MaxxVit``: MaxViT, MaxxViT and CoAtNet, with tables of relative positions or a network on offsets."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

import torch
from timm.layers import RelPosMlp
from timm.models import checkpoint
from timm.models.maxxvit import Downsample2d, MaxxVit, MaxxVitStage, TransformerBlock2d
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import Adapted, State, adapts
from visionpe.backbones.adapt.maxxvit_blocks import ADAPTED, MaxxVitHeads, RoundedUp, units
from visionpe.backbones.adapt.wrapped import weight_of
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.pyramid import Stage
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind, check_widths
from visionpe.backbones.shared.windows import Dilated, Pair, WholeMap, Windows
from visionpe.backbones.swin.weights import as_map
from visionpe.cache import TableCache
from visionpe.composition import Composition
from visionpe.graphs import one_node
from visionpe.grid import Grid
from visionpe.registry import create_encodings
from visionpe.tracing import number

# Kinds of attention, and how they cut the map.
CUTS: dict[str, type[Windows]] = {"window": Windows, "grid": Dilated, "full": WholeMap, "pooled": WholeMap}
# Layers of timm's network, by the names that a sequence of them has.
LAYERS = {"fc1": "0", "fc2": "2"}
# Pools that leave out the last row and column of a map of odd sides.
POOLS = (nn.AvgPool2d, nn.MaxPool2d)


class AdaptedMaxxVitStage(Stage, MaxxVitStage):
    """A stage of blocks of any kind, the first of which halves the map.

    Attributes:
        inside: Kind of attention -> height and width of what it sees at once at the trained size, tokens.
        places: For every block, the kinds of its attentions and their indices among those of the kind.
    """

    inside: dict[str, Pair]
    places: list[list[tuple[str, int]]]

    @property
    def windows_grow(self) -> bool:
        return False

    def take_over(self, spec: list[Any], *, grid_size: Pair, before: Pair, first: bool) -> None:
        """Put encodings in the place of timm's positions.

        Args:
            spec: The encodings.
            grid_size: Height and width of the map, tokens.
            before: Of the map that comes in.
            first: No stage before this one has attention.
        """
        take_any_size(self)
        parts = [units(block) for block in self.blocks]
        layers = [layer for of_block in parts for layer in of_block]
        heads = layers[-1][1][-1][1].num_heads
        kinds: dict[str, list[Any]] = defaultdict(list)
        self.places, self.inside, self.cache = [], {}, TableCache()
        for block, of_block in zip(self.blocks, parts):
            place = []
            for unit, attentions in of_block:
                for kind, attention in attentions:
                    # The first attention of whole maps may have fewer heads than those behind it.
                    kind = "pooled" if kind == "full" and attention.num_heads != heads else kind
                    self.inside[kind] = grid_size if CUTS[kind] is WholeMap else tuple(unit.partition_size)
                    attention.place = (kind, len(kinds[kind]))
                    place.append(attention.place)
                    kinds[kind].append(attention)
            self.places.append(place)
            block.adds = False
        for index, (unit, attentions) in enumerate(layers):
            unit.layer = index
            for _, attention in attentions:
                attention.rel_pos = None
        changed = [module for module in self.modules() if type(module) in ADAPTED]
        for module in changed:
            module.__class__ = ADAPTED[type(module)]
        block = next(block for block, place in zip(self.blocks, self.places) if place)
        block.adds = first
        weight, dim = weight_of(layers[0][1][0][1].qkv), weight_of(layers[-1][0].mlp.fc1).shape[1]
        context: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        if "window" in self.inside:
            context["attention_window"] = self.inside["window"]
        self.pos_encoding = StageEncoding(
            spec,
            dim=dim,
            num_heads=heads,
            depth=len(layers),
            grid_size=grid_size,
            kinds={
                kind: WindowKind(
                    dim=attentions[0].num_heads * attentions[0].dim_head,
                    num_heads=attentions[0].num_heads,
                    depth=len(attentions),
                    grid_size=self.inside[kind],
                )
                for kind, attentions in kinds.items()
            },
            first=first,
            **context,
        )
        check_widths(self.pos_encoding, inputs=weight.shape[1] == dim, joined=False)  # the first ones change it
        if first and isinstance(block, TransformerBlock2d):
            self._add_before(spec, dim=weight.shape[1], grid_size=before, **context)

    def _add_before(self, spec: list[Any], **context: Any) -> None:
        """Build what adds to tokens anew, for the map that comes in."""
        own = self.pos_encoding.map.parts
        adding = {part.name for part in own if part.sites() == ("add",)}
        built = [each for each in spec if each["name"] in adding]
        before = iter(create_encodings(built, num_heads=1, depth=1, prefix_slots=0, **context) if built else ())
        self.pos_encoding.map = Composition([next(before) if part.name in adding else part for part in own])

    def set_input_size(self, feat_size: Pair, window_size: Pair, grid_size: Pair) -> None:
        """Take another nominal size of the map, and other windows and grids, tokens; tables are resized."""
        sizes = {"window": tuple(window_size), "grid": tuple(grid_size)}
        self.inside = {kind: sizes.get(kind, tuple(feat_size)) for kind in self.inside}
        self.pos_encoding.set_input_grid(feat_size, self.inside)

    def partitions(self, size: Pair, device: torch.device) -> list[list[Partition]]:
        ways = {}
        for kind, inside in self.inside.items():
            windows = CUTS[kind](size, size if CUTS[kind] is WholeMap else inside)
            masked = (
                (None, None) if CUTS[kind] is WholeMap else (self.mask(windows, device), self.gather(windows, device))
            )
            ways[kind] = (windows, Grid(size=windows.window), *masked)
        out = []
        for place in self.places:
            out.append([self._partition(kind, layer, *ways[kind]) for kind, layer in place])
        return out

    def _partition(self, kind: str, layer: int, windows: Windows, grid: Grid, mask: Any, gather: Any) -> Partition:
        return Partition(windows, self.pos_encoding.inside[kind], grid, mask, layer, gather)

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, height, width)`` to ``(B, C', height / 2, width / 2)``, rounded up."""
        height, width = ((number(n) - 1) // 2 + 1 for n in x.shape[2:])
        encoding = self.pos_encoding.map
        for block, cuts in zip(self.blocks, self.partitions((height, width), x.device)):
            told = (encoding, cuts) if cuts else ()
            x = checkpoint(block, x, *told) if self.grad_checkpointing else block(x, *told)
        return x


@adapts(MaxxVit)
class AdaptedMaxxVit(Adapted, MaxxVit):
    """Tables (``rpb``) or networks on offsets (``cpb``), in windows, in grids and in whole maps.

    What adds to tokens does so behind the first convolutions that are followed by attention.
    """

    position_keys: ClassVar[tuple[str, ...]] = ("stages.*.rel_pos.*",)
    default_out_indices = (0, 1, 2, 3, 4)
    sees_images = "stem"

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        attentions = [a for block in _blocks(model) for _, several in units(block) for _, a in several]
        if not attentions:
            raise ValueError("model: no block has attention; allowed: MaxViT, MaxxViT, CoAtNet and their like")
        own = attentions[0].rel_pos
        if own is None:
            return []
        if isinstance(own, RelPosMlp):
            network = own.mlp
            return [{"name": "cpb", "form": "raw", "hidden": network.fc1.out_features, "dropout": network.drop1.p}]
        return [{"name": "rpb"}]

    def take_over(self, spec: list[Any]) -> None:
        first, before = True, _halved(self.img_size, rounded_up=False)
        for stage in self.stages:
            size = _halved(before)
            if any(units(block) for block in stage.blocks):
                stage.__class__ = AdaptedMaxxVitStage
                stage.take_over(spec, grid_size=size, before=before, first=first)
                first = False
            else:
                take_any_size(stage)
            before = size

    def positions(self, state: State) -> dict[str, Tensor]:
        tables: dict[str, dict[int, Tensor]] = defaultdict(dict)
        out = {}
        for name, module in self.named_modules():
            if not isinstance(module, MaxxVitHeads):
                continue
            kind, layer = module.place
            stage = name.split(".")[1]
            prefix, where = f"{name}.rel_pos.", f"stages.{stage}.pos_encoding.inside.{kind}"
            if (table := state.get(f"{prefix}relative_position_bias_table")) is not None:
                window = self.stages[int(stage)].inside[kind]
                # TensorFlow's tables go by key - query, and are maps already.
                tables[where][layer] = table.flip(1, 2) if table.ndim == 3 else as_map(table, window, None)
            for its, own in LAYERS.items():
                for kind_of in ("weight", "bias"):
                    if (value := state.get(f"{prefix}mlp.{its}.{kind_of}")) is not None:
                        out[f"{where}.cpb.mlp.{layer}.{own}.{kind_of}"] = value
        for where, of_kind in tables.items():
            out[f"{where}.rpb.table"] = torch.stack([of_kind[layer] for layer in sorted(of_kind)])
        return out


def take_any_size(stage: nn.Module) -> None:
    """Let the pools of a stage, changed in place, take maps of odd sides."""
    for module in stage.modules():
        pool: Any = getattr(module, "pool", None)
        if type(module) is Downsample2d and type(pool) in POOLS and pool.padding == 0:
            module.__class__ = RoundedUp


def _blocks(model: Any) -> list[nn.Module]:
    return [block for stage in model.stages for block in stage.blocks]


def _halved(size: Pair, *, rounded_up: bool = True) -> Pair:
    height, width = ((n + rounded_up) // 2 for n in size)
    return height, width
