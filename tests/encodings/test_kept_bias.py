"""LeViT's bias is kept from pass to pass while its table holds the same numbers, however these are changed."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visionpe.encodings.bias.attention_bias
from visionpe import Grid, create_encoding

GRID = Grid((3, 4))
POOLING = Grid((3, 4), stride=(2, 2))


def built(depth: int = 2) -> Any:
    encoding = create_encoding("attention_bias", dim=4, num_heads=2, depth=depth, grid_size=(3, 4)).eval()
    nn.init.normal_(encoding.table)
    return encoding


def matrix(encoding: Any, grid: Grid = GRID, layer: int = 0) -> Tensor:
    q = torch.zeros(1, 2, grid.num_tokens, 2)
    return encoding("bias", q, q, grid, layer=layer).matrix(torch.float32)


def anew(encoding: Any, grid: Grid = GRID, layer: int = 0) -> Tensor:
    with torch.enable_grad():  # nothing is kept there
        return matrix(encoding, grid, layer).detach()


def by_data(encoding: Any) -> None:
    encoding.table.data.copy_(torch.randn_like(encoding.table))


def by_optimizer(encoding: Any) -> None:
    with torch.enable_grad():
        matrix(encoding).sum().backward()
    torch.optim.SGD(encoding.parameters(), lr=0.1).step()


def by_loading(encoding: Any) -> None:
    encoding.load_state_dict({"table": torch.randn_like(encoding.table)})


def by_another_parameter(encoding: Any) -> None:
    encoding.table = nn.Parameter(torch.randn_like(encoding.table))


def by_another_size(encoding: Any) -> None:
    encoding.set_input_grid((5, 5))


CHANGES = [by_data, by_optimizer, by_loading, by_another_parameter, by_another_size]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("grid", [GRID, POOLING])
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(change: Callable[[Any], None], grid: Grid, mode: Any) -> None:
    encoding = built()
    with mode():
        before = matrix(encoding, grid)
        assert matrix(encoding, grid) is before
    change(encoding)
    wanted = anew(encoding, grid)
    with mode():
        after = matrix(encoding, grid)
        assert torch.equal(after, wanted)
        assert not torch.equal(after, before)
        assert matrix(encoding, grid) is after


def test_one_a_block() -> None:
    encoding = built()
    with torch.no_grad():
        for grid in (GRID, Grid((5, 2)), Grid((3, 4), prefix=1), POOLING):
            for layer in (0, 1):
                assert torch.equal(matrix(encoding, grid, layer), anew(encoding, grid, layer))
        assert len(encoding.kept) == 2
        encoding.set_policy("nearest")
        assert torch.equal(matrix(encoding, Grid((5, 2))), anew(encoding, Grid((5, 2))))
    encoding.train()
    assert not len(encoding.kept)


def test_kept_in_one_mode_serves_the_other() -> None:
    encoding = built()
    with torch.inference_mode():
        matrix(encoding)
    with torch.no_grad():
        assert not matrix(encoding).is_inference()


def test_no_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = built()
    monkeypatch.setattr(visionpe.encodings.bias.attention_bias, "KEPT_BYTES", 2 * 2 * 12 * 12 * 4 - 1)
    with torch.no_grad():
        assert torch.equal(matrix(encoding), anew(encoding))
    assert not len(encoding.kept)


def test_copies_and_files_are_without() -> None:
    encoding = built()
    with torch.no_grad():
        matrix(encoding)
    assert list(encoding.state_dict()) == ["table"]
    file = io.BytesIO()
    torch.save(encoding, file)
    file.seek(0)
    others = [copy.deepcopy(encoding), pickle.loads(pickle.dumps(encoding)), torch.load(file, weights_only=False)]
    for other in others:
        assert not len(other.kept)
        with torch.no_grad():
            assert torch.equal(matrix(other), matrix(encoding))
            by_data(other)
            assert not torch.equal(matrix(other), matrix(encoding))


def test_transformed_and_called_with_others() -> None:
    encoding, tables = built(), torch.randn(3, 2, 2, 3, 4)

    def called(table: Tensor) -> Tensor:
        return torch.func.functional_call(encoding, {"table": table}, ("bias", *[torch.zeros(1, 2, 12, 2)] * 2, GRID))

    with torch.no_grad():
        matrix(encoding)
        together = torch.func.vmap(lambda table: called(table).matrix(torch.float32))(tables)
        for table, found in zip(tables, together):
            assert torch.equal(found, called(table).matrix(torch.float32))
        assert torch.equal(matrix(encoding), anew(encoding))


class Attention(nn.Module):
    """What is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding = built()

    def forward(self, q: Tensor) -> Tensor:
        return q @ q.transpose(-2, -1) + self.encoding("bias", q, q, GRID).matrix(q.dtype)


def test_graphs_hold_the_parameter() -> None:
    module, q = Attention().eval(), torch.randn(1, 2, 12, 2)
    with torch.no_grad():
        module(q)
        graphs = [torch.export.export(module, (q,)).module(), torch.compile(module, backend="eager", fullgraph=True)]
        for graph in graphs:
            assert torch.equal(graph(q), module(q))
        by_data(module.encoding)
        assert torch.equal(graphs[1](q), module(q))


def test_threads() -> None:
    encoding = built()
    wanted = {size: anew(encoding, Grid(size)) for size in ((3, 4), (5, 2))}

    def asked(turn: int) -> bool:
        size = ((3, 4), (5, 2))[turn % 2]
        with torch.no_grad():
            return torch.equal(matrix(encoding, Grid(size)), wanted[size])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(asked, range(100)))
