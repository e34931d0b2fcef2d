"""A learned bias on offsets is kept from pass to pass while its parameters hold the same numbers, however changed."""

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

from visionpe import Grid, create_encoding
from visionpe.encodings.bias.offset import OffsetEncoding

GRID = Grid((3, 4))
POOLING = Grid((3, 4), stride=(2, 2))
TABLES = ("attention_bias", "rpb", "rpb(prefix_slots=1)", "rpb(shared=True)")
NETWORKS = ("cpb", 'cpb(form="raw", dropout=0.5)', "cpb(shared=True)", "fire", "dpb(hidden=5)")
STACKED = ("kerple", "rpb_axes")
SPECS = (*TABLES, *NETWORKS, *STACKED)


def built(spec: str = "attention_bias", depth: int = 2) -> Any:
    encoding = create_encoding(spec, dim=4, num_heads=2, depth=depth, grid_size=(3, 4)).eval()
    for name, parameter in encoding.named_parameters():
        low = 20 if name == "threshold" else 0.01  # beyond the grid, where it counts
        nn.init.uniform_(parameter, low, low + 0.1)
    return encoding


def matrix(encoding: Any, grid: Grid = GRID, layer: int = 0) -> Tensor:
    q = torch.zeros(1, 2, grid.num_tokens, 2)
    return encoding("bias", q, q, grid, layer=layer).matrix(torch.float32)


def anew(encoding: Any, grid: Grid = GRID, layer: int = 0) -> Tensor:
    with torch.enable_grad():  # nothing is kept there
        return matrix(encoding, grid, layer).detach()


def others(encoding: Any) -> dict[str, Tensor]:
    return {key: value * (1.5 + torch.rand_like(value)) for key, value in encoding.state_dict().items()}


def by_data(encoding: Any) -> None:
    for key, value in others(encoding).items():
        encoding.get_parameter(key).data.copy_(value)


def by_optimizer(encoding: Any) -> None:
    with torch.enable_grad():
        matrix(encoding, Grid((3, 4), prefix=1)).square().sum().backward()
    torch.optim.SGD(encoding.parameters(), lr=0.1).step()


def by_loading(encoding: Any) -> None:
    encoding.load_state_dict(others(encoding))


def by_other_parameters(encoding: Any) -> None:
    for key, value in others(encoding).items():
        holder, _, name = key.rpartition(".")
        other = nn.Parameter(value)
        while other._version < encoding.get_parameter(key)._version:  # as old
            with torch.no_grad():
                other.add_(0)
        setattr(encoding.get_submodule(holder), name, other)


def by_another_size(encoding: Any) -> None:
    encoding.set_input_grid((5, 5))


CHANGES = [by_data, by_optimizer, by_loading, by_other_parameters]
CASES = [(spec, change) for spec in SPECS for change in CHANGES] + [(spec, by_another_size) for spec in TABLES]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("grid", [GRID, POOLING])
@pytest.mark.parametrize(("spec", "change"), CASES)
def test_every_change_is_seen(spec: str, change: Callable[[Any], None], grid: Grid, mode: Any) -> None:
    encoding = built(spec)
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


@pytest.mark.parametrize("spec", SPECS)
def test_a_change_of_one_parameter_is_seen(spec: str) -> None:
    encoding, grid = built(spec), Grid((3, 4), prefix=1)
    with torch.no_grad():
        for parameter in encoding.parameters():
            before = [matrix(encoding, grid, layer) for layer in (0, 1)]
            parameter.data.mul_(3)
            after = [matrix(encoding, grid, layer) for layer in (0, 1)]
            assert any(not torch.equal(one, other) for one, other in zip(before, after))
            assert all(torch.equal(after[layer], anew(encoding, grid, layer)) for layer in (0, 1))


def in_place(encoding: Any) -> None:
    for value in encoding.parameters():
        value.mul_(2)


def by_policy(encoding: Any) -> None:
    encoding.set_policy("temperature+rescale" if "temperature" in encoding.modifiers else encoding.policies[-1])


@pytest.mark.parametrize("change", [in_place, by_loading, by_other_parameters, by_policy])
@pytest.mark.parametrize("spec", [*TABLES, *STACKED])
def test_a_change_between_the_layers_of_a_pass_is_seen(spec: str, change: Callable[[Any], None]) -> None:
    encoding, grid = built(spec, depth=3), Grid((5, 2))
    with torch.no_grad():
        for layer in range(3):
            matrix(encoding, Grid((5, 2)), layer)
        before = [matrix(encoding, grid, layer) for layer in range(2)]
        change(encoding)
        after = matrix(encoding, grid, 2)
        assert torch.equal(after, anew(encoding, grid, 2))
        assert all(torch.equal(matrix(encoding, grid, layer), anew(encoding, grid, layer)) for layer in range(3))
        assert change is by_policy or not torch.equal(before[0], matrix(encoding, grid))


@pytest.mark.parametrize("spec", [*TABLES, *STACKED])
def test_a_change_between_passes_that_ask_different_layers_is_seen(spec: str) -> None:
    encoding = built(spec)
    with torch.no_grad():
        for layer in (0, 1, 0):
            matrix(encoding, Grid((3, 4)), layer)
        by_data(encoding)
        assert torch.equal(matrix(encoding, Grid((3, 4)), 1), anew(encoding, layer=1))


def test_gradients_asked_for_inside_a_pass_are_there() -> None:
    encoding, grid = built(), Grid((3, 4))
    with torch.no_grad():
        for layer in (0, 1, 0):
            matrix(encoding, grid, layer)
    assert matrix(encoding, grid, 1).requires_grad


def test_numbers_are_compared_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, compared = built(depth=4), []
    equal = torch.equal
    monkeypatch.setattr(torch, "equal", lambda *pair: compared.append(1) or equal(*pair))
    with torch.no_grad():
        for size in ((3, 4), (3, 4), (5, 2)):
            grid = Grid(size)
            for layer in range(4):
                matrix(encoding, grid, layer)
    # At the first pass there is nothing to compare with; where the size is new, each layer is made anew.
    assert len(compared) == 3 + 1 + 4


@pytest.mark.parametrize("spec", SPECS)
def test_one_a_block(spec: str) -> None:
    encoding = built(spec)
    with torch.no_grad():
        for grid in (GRID, Grid((5, 2)), Grid((3, 4), prefix=1), POOLING):
            for layer in (0, 1):
                assert torch.equal(matrix(encoding, grid, layer), anew(encoding, grid, layer))
        assert len(encoding.kept) == 2
        matrix(encoding, Grid((5, 2)))
        encoding.set_policy("nearest" if "nearest" in encoding.policies else "interpolate")
        assert torch.equal(matrix(encoding, Grid((5, 2))), anew(encoding, Grid((5, 2))))
    encoding.train()
    assert not len(encoding.kept)


def test_kept_in_one_mode_serves_the_other() -> None:
    encoding = built()
    with torch.inference_mode():
        matrix(encoding)
    with torch.no_grad():
        assert not matrix(encoding).is_inference()


@pytest.mark.parametrize("spec", SPECS)
def test_no_large_ones(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = built(spec)
    for kind in (OffsetEncoding, type(encoding)):
        monkeypatch.setattr(kind, "kept_bytes", 2 * 2 * 12 * 12 * 4 - 1)
    with torch.no_grad():
        assert torch.equal(matrix(encoding), anew(encoding))
    assert not len(encoding.kept)


def test_nothing_is_kept_in_training() -> None:
    encoding = built('cpb(form="raw", dropout=0.5)').train()
    with torch.no_grad():
        assert not torch.equal(matrix(encoding), matrix(encoding))  # dropout
    assert not len(encoding.kept)


class Twice(nn.Module):
    """Around a layer, as an adapter is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.factor = inner, 2.0

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor


@pytest.mark.parametrize("spec", NETWORKS)
def test_what_stands_around_layers_or_listens_is_called(spec: str) -> None:
    encoding, calls = built(spec), []
    with torch.no_grad():
        before = matrix(encoding)
        hook = encoding.mlp[0][-1].register_forward_hook(lambda *_: calls.append(1))
        assert torch.equal(matrix(encoding), before)
        assert torch.equal(matrix(encoding), before)
        assert len(calls) == 2
        hook.remove()
        encoding.mlp[0][-1] = around = Twice(encoding.mlp[0][-1])
        doubled = matrix(encoding)
        assert not torch.equal(doubled, before)
        around.factor = 3.0
        assert not torch.equal(matrix(encoding), doubled)
        encoding.mlp[0][-1] = around.inner
        assert torch.equal(matrix(encoding), before)
        encoding.mlp[0][-1].forward = lambda x: x[..., :2] * 0  # patched, as libraries that count operations do
        assert not torch.equal(matrix(encoding), before)


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
        with torch.no_grad():
            return all(torch.equal(matrix(encoding, Grid(size)), wanted[size]) for size in list(wanted)[turn % 2 :])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(asked, range(100)))
