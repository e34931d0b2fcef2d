"""Splits that are the same at every call, with classes in the shares they have in the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def stratified(labels: Sequence[int] | Tensor, held_out: Mapping[str, int]) -> dict[str, Tensor]:
    """Indices of ``train``, which is what is left, and of the splits that are held out, in this order.

    Args:
        labels: Of all images.
        held_out: Split -> number of its images.
    """
    from sklearn.model_selection import train_test_split

    labels = torch.as_tensor(labels)
    rest = torch.arange(len(labels)).numpy()
    parts = {}
    for split, size in held_out.items():
        rest, part = train_test_split(rest, test_size=size, stratify=labels[rest], random_state=0)
        parts[split] = torch.from_numpy(part)
    return {"train": torch.from_numpy(rest), **parts}
