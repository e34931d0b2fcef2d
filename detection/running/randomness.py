"""Random numbers that do not depend on the past: a training that is broken off and resumed ends as an unbroken one.

What is random in a sample (augmentation, also in worker processes) follows from the seed, the epoch and the place of
the sample in it; what is random in the model follows from the seed and the iteration.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, get_worker_info


def mixed(*numbers: int) -> int:
    """A number of 63 bits that looks random and follows from ``numbers``."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(number: int) -> None:
    """Seed Python's, numpy's and the CPU's generator of PyTorch."""
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.default_generator.manual_seed(number)


class KeyedIndex(int):
    """The index of a sample that knows what its random numbers follow from."""

    key: int = 0

    def __new__(cls, index: int, key: int) -> KeyedIndex:
        self = super().__new__(cls, index)
        self.key = key
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyedIndex, (int(self), self.key)


class KeyedSampler:
    """Gives the indices of another sampler with keys from its epoch and the place in it.

    Args:
        sampler: The sampler; everything else is asked of it.
        seed: Of the run.
    """

    def __init__(self, sampler: Any, seed: int) -> None:
        self.sampler, self.seed = sampler, seed

    def __iter__(self) -> Iterator[KeyedIndex]:
        epoch, rank = int(getattr(self.sampler, "epoch", 0)), get_rank()
        for place, index in enumerate(self.sampler):
            yield KeyedIndex(index, mixed(self.seed, epoch, place, rank))

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)


@cache
def _seeded(cls: Any) -> Any:
    """A subclass of a data set that seeds before each sample."""

    def getitem(self: Any, index: Any) -> Any:
        if not isinstance(index, KeyedIndex):
            return cls.__getitem__(self, index)
        alone = get_worker_info() is None  # then the model draws from the same generators
        before = (random.getstate(), np.random.get_state(), torch.get_rng_state()) if alone else None
        seed_all(index.key)
        try:
            return cls.__getitem__(self, int(index))
        finally:
            if before is not None:
                random.setstate(before[0])
                np.random.set_state(before[1])
                torch.set_rng_state(before[2])

    return type(cls.__name__, (cls,), {"__getitem__": getitem, "__module__": cls.__module__})


def seed_samples(loader: DataLoader, seed: int | None) -> DataLoader:
    """Make what is random in the samples of a loader follow from the seed, the epoch and the place in it.

    Args:
        loader: Of a data set with indices; any other is left as it is.
        seed: Of the run.

    Returns:
        The loader.
    """
    batch_sampler: Any = loader.batch_sampler
    dataset: Any = loader.dataset
    if hasattr(batch_sampler, "sampler") and hasattr(type(dataset), "__getitem__"):
        batch_sampler.sampler = KeyedSampler(batch_sampler.sampler, int(seed or 0))
        kind: Any = type(dataset)
        dataset.__class__ = _seeded(kind)
    return loader


@HOOKS.register_module()
class ResumableRandomnessHook(Hook):
    """Seed all generators before every training iteration from the run's seed, the iteration and the process.

    mmengine's checkpoints hold no state of the random generators. With this hook dropout, stochastic depth, mixup and
    the sampling of proposals are the same whether or not the run was broken off before. Our Runner brings it along.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the generators of all devices."""
        number = mixed(int(runner.seed or 0), runner.iter, get_rank())
        seed_all(number)
        torch.manual_seed(number)
