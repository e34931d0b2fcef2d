"""One model serves many threads at changing sizes, with the results of one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from conftest import tiny_vit

from visionpe.cache import TableCache

SIZES = [(24, 24), (24, 40), (32, 16), (40, 40), (48, 24)]


@pytest.fixture
def _switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run(work: object, count: int = 6) -> None:
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("_switching")
def test_a_full_store_of_tables() -> None:
    store, errors = TableCache(limit=40), []

    def work(seed: int) -> None:
        for i in torch.randint(30, (1500,), generator=torch.Generator().manual_seed(seed)).tolist():
            try:
                assert store.get(i, lambda i=i: torch.tensor([float(i)])).item() == i
            except Exception as error:
                errors.append(repr(error))

    run(work, 8)
    assert not errors, errors[:3]
    assert len(store) <= 10


@pytest.mark.usefixtures("_switching")
@pytest.mark.parametrize(
    "spec",
    [
        "alibi",
        "rope_mixed+ape",
        "lape(ape)",
        *(pytest.param(s, marks=pytest.mark.long) for s in ("rope_axial", "cpb", "irpe")),
    ],
)
def test_many_threads(spec: str) -> None:
    model = tiny_vit(spec)
    for module in model.modules():
        for store in vars(module).values():
            if isinstance(store, TableCache):
                store.limit = 20_000  # full after a few sizes, as at large ones
    inputs = {size: torch.randn(1, 3, *size) for size in SIZES}
    with torch.inference_mode():
        right = {size: model(x) for size, x in inputs.items()}
    errors: list[str] = []

    def work(seed: int) -> None:
        for i in torch.randint(len(SIZES), (40,), generator=torch.Generator().manual_seed(seed)).tolist():
            try:
                with torch.inference_mode():
                    torch.testing.assert_close(model(inputs[SIZES[i]]), right[SIZES[i]], atol=1e-5, rtol=1e-5)
            except Exception as error:
                errors.append(repr(error))

    run(work)
    assert not errors, errors[:3]
