"""Parameters of encodings that hold something of every block, where files and models have other numbers of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding


def stacked_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, int]]:
    """Name, parameter, and the axis along which blocks stand."""
    for path, part in model.named_modules():
        if isinstance(part, PositionEncoding):
            for name, parameter in part.named_parameters(recurse=False):
                for axis in (axis for pattern, axis in part.stacked if fnmatchcase(name, pattern)):
                    yield f"{path}.{name}", parameter, axis


def fit_blocks(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Of a model that was cut down to its features, the first blocks; of a file of such a model, the rest as it was.

    Args:
        state: Tensors under keys of the model.
        model: Its parameters tell how many blocks they hold.
    """
    out = dict(state)
    for key, own, axis in stacked_parameters(model):
        value = out.get(key)
        if value is None or value.ndim != own.ndim or value.shape[axis] == own.shape[axis]:
            continue
        missing = own.shape[axis] - value.shape[axis]
        rest = own.detach().narrow(axis, value.shape[axis], missing) if missing > 0 else None
        if rest is None:
            out[key] = value.narrow(axis, 0, own.shape[axis])
        elif (
            rest.numel() and rest.shape[:axis] + rest.shape[axis + 1 :] == value.shape[:axis] + value.shape[axis + 1 :]
        ):
            out[key] = torch.cat([value, rest.to(value)], dim=axis)
    return out
