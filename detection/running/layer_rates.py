"""Learning rates that shrink with the distance from the head; what blocks own follows them, wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.optim import Optimizer

from visionpe import PositionEncoding

BLOCK = re.compile(r".*?blocks\.\d+\.")


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Factors on the learning rate that shrink with the distance from the head.

    Layers are counted in the timm network inside ``model``, by its ``group_matcher``. What is around it, such as neck
    and heads of a detector, is one more layer on top and has factor 1. Position parameters of a block have its factor,
    as where published code keeps them in the block; of a parameter that holds several blocks, that of the last: see
    :func:`block_scales`.

    Args:
        model: A timm model, or a classifier, detector or segmentor around one.
        layer_decay: Factor for each layer further from the head, in (0, 1].

    Returns:
        Factors by parameter name; names outside the network are absent.

    Raises:
        ValueError: If ``layer_decay`` is out of range, or ``model`` holds no timm network.
    """
    scales, rows = _scales(model, layer_decay)
    return scales | {name: max(each) for name, (_, each) in rows.items()}


def block_scales(model: nn.Module, layer_decay: float) -> dict[str, Tensor]:
    """What the entries of a parameter for several blocks have besides the factor of :func:`layer_scales`.

    Returns:
        Factors by parameter name, up to 1, of a shape that multiplies the parameter: ``(1, ..., blocks, 1, ...)``.

    Raises:
        ValueError: As :func:`layer_scales`.
    """
    _, rows = _scales(model, layer_decay)
    parameters, out = dict(model.named_parameters()), {}
    for name, (axis, each) in rows.items():
        shape = [1] * parameters[name].ndim
        shape[axis] = len(each)
        if len(set(each)) > 1:
            out[name] = torch.tensor(each).div(max(each)).view(shape)
    return out


class BlockRates:
    """Learning rates of their own for the entries of parameters that hold several blocks.

    A step of AdamW, of SGD and the like is linear in the learning rate: each entry keeps a share of the step that its
    group's rate made, weight decay included.

    Args:
        optimizer: Its steps are followed.
        shares: Parameters and, for their entries, shares of the group's rate.
    """

    def __init__(self, optimizer: Optimizer, shares: list[tuple[nn.Parameter, Tensor]]) -> None:
        self.shares, self.before = shares, list[Tensor]()
        optimizer.register_step_pre_hook(self._keep)
        optimizer.register_step_post_hook(self._share)

    def _keep(self, *_: Any) -> None:
        self.before = [parameter.detach().clone() for parameter, _ in self.shares]

    @torch.no_grad()
    def _share(self, *_: Any) -> None:
        for (parameter, share), old in zip(self.shares, self.before):
            parameter.copy_(torch.lerp(old, parameter, share.to(parameter).expand_as(old)))
        self.before = []


def _networks(model: nn.Module) -> dict[str, Any]:
    """The topmost modules that tell their layers (timm's models), by the prefix of their parameters."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if hasattr(module, "group_matcher") and not prefix.startswith(tuple(found)):
            found[prefix] = module
    return found


def _scales(model: nn.Module, layer_decay: float) -> tuple[dict[str, float], dict[str, tuple[int, list[float]]]]:
    """Factors of parameters; of those that hold several blocks, the axis of these and the factor of each."""
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay={layer_decay} is out of range; allowed: above 0, up to 1")
    networks = _networks(model)
    if not networks:
        raise ValueError(f"layer_decay={layer_decay} needs a timm model; {type(model).__name__} holds none")
    around = any(not name.startswith(tuple(networks)) for name, _ in model.named_parameters())
    scales: dict[str, float] = {}
    rows: dict[str, tuple[int, list[float]]] = {}
    for prefix, network in networks.items():
        layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
        top = max(layers.values(), default=0) + around
        own = {name: layer_decay ** (top - layer) for name, layer in layers.items()}
        of_block = {match[0]: scale for name, scale in own.items() if (match := BLOCK.match(name))}
        for name, axis, blocks in _of_blocks(network, of_block):
            if axis is None:
                own[name] = of_block[blocks[0]]
            else:
                rows[prefix + name] = (axis, [of_block[block] for block in blocks])
        scales |= {prefix + name: scale for name, scale in own.items()}
    return scales, rows


def _of_blocks(network: Any, known: Mapping[str, float]) -> Iterator[tuple[str, int | None, list[str]]]:
    """Position parameters of blocks: name, axis of the blocks (None for one block alone), prefixes of their names."""
    for path, part in network.named_modules():
        blocks = _blocks(network, path, part, known) if isinstance(part, PositionEncoding) else []
        for name, parameter in part.named_parameters(recurse=False) if blocks else ():
            for axis in (axis for pattern, axis in part.stacked if fnmatchcase(name, pattern)):
                if parameter.shape[axis] == len(blocks):
                    yield f"{path}.{name}", axis, blocks
        for group in part.by_block if blocks else ():
            for block, module in zip(blocks, getattr(part, group) or ()):
                for name, _ in module.named_parameters():
                    index = blocks.index(block)
                    yield f"{path}.{group}.{index}.{name}", None, [block]


def _blocks(network: Any, path: str, part: PositionEncoding, known: Mapping[str, float]) -> list[str]:
    """Prefixes of the blocks that an encoding serves, in its order; those that were cut off count as the last."""
    home, _, rest = path.partition("pos_encoding")
    places = getattr(network, "places", {})  # of the blocks of a windowed ViT: kind, index among those
    if rest.startswith(".inside.") and places:
        kind = rest.split(".")[2]
        numbers = [block for block, (its, _) in sorted(places.items()) if its == kind]
    else:
        numbers = list(range(part.depth))
    names = [f"{home}blocks.{number}." for number in numbers]
    kept = [name for name in names if name in known]
    return [name if name in known else kept[-1] for name in names] if kept else []
