"""Random numbers follow from seed, epoch, place and iteration, not from what ran before."""

from __future__ import annotations

import pickle
import random

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from visionpe.detection.running.randomness import KeyedIndex, seed_samples


class Draws(Dataset):
    """Samples that draw from all three generators."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        assert type(index) is int
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


def loader(workers: int = 0, seed: int | None = 3, infinite: bool = False) -> DataLoader:
    data = Draws()
    sampler = InfiniteSampler(data, seed=1) if infinite else DefaultSampler(data, seed=1)
    options = {"persistent_workers": True} if workers else {}
    return seed_samples(DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers, **options), seed)


def epochs(given: DataLoader, *numbers: int) -> list[torch.Tensor]:
    out = []
    for number in numbers:
        given.sampler.set_epoch(number)
        out.append(torch.cat(list(given)))
    return out


def test_an_epoch_is_the_same_whatever_was_before() -> None:
    whole = epochs(loader(), 0, 1, 2)
    assert not torch.equal(whole[1], whole[2])
    random.seed(5)
    torch.rand(17)
    assert torch.equal(epochs(loader(), 2)[0], whole[2])
    assert torch.equal(epochs(loader(workers=2), 2)[0], whole[2])  # workers that never saw epochs 0 and 1
    assert not torch.equal(epochs(loader(seed=4), 2)[0], whole[2])
    assert not torch.equal(whole[2][0, 1:], whole[2][1, 1:])


def test_the_generators_of_the_model_are_left_alone() -> None:
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    epochs(loader(), 0)
    # The loader itself draws the base seed of its workers from PyTorch's.
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state[1:]


def test_an_endless_sampler_goes_on_in_its_place() -> None:
    given = iter(loader(infinite=True))
    batches = [next(given) for _ in range(7)]
    again = iter(loader(infinite=True))
    for _ in range(5):
        next(again)
    assert torch.equal(next(again), batches[5])


def test_a_key_travels_to_a_worker() -> None:
    index = pickle.loads(pickle.dumps(KeyedIndex(4, 99)))
    assert (index, index.key) == (4, 99)
