"""Does the neck, or the head, expect what the backbone gives?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from visionpe.detection.models.features import TimmFeatures
from visionpe.detection.models.stride_check import check_strides
from visionpe.detection.running.kinds import kind_name

HEADS = ("decode_head", "auxiliary_head", "panoptic_head", "bbox_head")
SOURCES = ("pretrained", "checkpoint_path", "init_cfg", "channels", "strides")


def _get(owner: Any, name: str) -> Any:
    return owner.get(name) if isinstance(owner, Mapping) else getattr(owner, name, None)


def _channels(backbone: Any) -> list[int] | None:
    """Channels of a backbone or of its config; None where it is no ``TimmFeatures``."""
    if isinstance(backbone, Mapping):
        if kind_name(backbone) != TimmFeatures.__name__:
            return None
        with torch.device("meta"):
            backbone = MODELS.build({key: value for key, value in backbone.items() if key not in SOURCES})
    return backbone.channels if isinstance(backbone, TimmFeatures) else None


def _heads(model: Any) -> Iterator[tuple[str, Any]]:
    for name in HEADS:
        head = _get(model, name)
        if isinstance(head, (list, tuple, nn.ModuleList)):
            yield from ((f"{name}[{i}]", each) for i, each in enumerate(head))
        elif head is not None:
            yield name, head


def _expected(reader: Any, channels: Sequence[int]) -> tuple[Any, Any]:
    """What a neck or head says of its input, and what it would get."""
    wanted, index = _get(reader, "in_channels"), _get(reader, "in_index")
    if isinstance(wanted, int):
        index = -1 if index is None else index
        known = isinstance(index, int) and -len(channels) <= index < len(channels)
        return wanted, channels[index] if known else list(channels)
    if isinstance(index, Sequence) and all(-len(channels) <= i < len(channels) for i in index):
        return list(wanted), [channels[i] for i in index]
    return list(wanted), list(channels)


def check_neck(model: Any) -> None:
    """Compare the backbone's channels with those that the neck expects, or the heads where there is no neck.

    Of a model that is built the strides that heads expect are compared too.

    Args:
        model: A detector or segmentor, or its config. Of a config, the backbone is built without memory or weights.
            Models without a :class:`~visionpe.detection.TimmFeatures` pass, and so do parts that do not say what they
            expect.

    Raises:
        ValueError: If they differ; names the part, what it expects, what it would get, and ``out_indices``.
    """
    if isinstance(model, nn.Module):
        check_strides(model)
    backbone, neck = _get(model, "backbone"), _get(model, "neck")
    readers = [("neck", neck)] if neck is not None else list(_heads(model))
    readers = [(name, reader) for name, reader in readers if _get(reader, "in_channels") is not None]
    channels = _channels(backbone) if readers else None
    if channels is None:
        return
    indices = _get(backbone, "out_indices") or (0, 1, 2, 3)
    stated = indices if isinstance(indices, int) else tuple(indices)
    for name, reader in readers:
        wanted, given = _expected(reader, channels)
        if wanted != given:
            raise ValueError(
                f"{name}.in_channels={wanted} does not fit: {_get(backbone, 'model_name')!r} with "
                f"out_indices={stated} gives channels {list(channels)}; allowed here: {given}"
            )
