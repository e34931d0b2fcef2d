"""Which tokens windows put together: against a count by hand, for every way to shift and pad."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch

from visionpe.backbones.shared.windows import Dilated, Windows

KINDS = [{}, {"rolled": False}, {"centred": True}, {"spare": (1, 2)}]


def cell(place: int, windows: Windows) -> tuple[int, int]:
    """The window in which a token of the map belongs."""
    before = windows.before if windows.centred else (0, 0)
    axes = zip(divmod(place, windows.size[1]), windows.shift, windows.window, before)
    first, second = ((p - s) // w if s else (p + b) // w for p, s, w, b in axes)
    return first, second


def check_who_sees_whom(windows: Windows, cell: Callable[[int, Windows], tuple[int, int]]) -> None:
    """Splitting, joining, gathering and masks, where ``cell`` says in which window a token of the map belongs."""
    size = windows.size
    count = size[0] * size[1]
    x = torch.arange(count).view(1, *size, 1) + 1  # padding is 0
    tokens = windows.split(x)
    assert tokens.shape == (windows.number, windows.tokens, 1)
    assert torch.equal(windows.join(tokens), x)
    order, back = windows.gather()
    gathered = x.flatten(1, 2)[:, order].view_as(tokens)
    assert torch.equal(gathered[tokens > 0], tokens[tokens > 0])  # elsewhere some token, hidden by the mask
    assert torch.equal(gathered.view(1, -1, 1)[:, back].view_as(x), x)
    mask, places = windows.mask()[:, 0], tokens[..., 0] - 1
    assert mask.any(-1).all()  # no row without a key
    seen = set()
    for w, i, j in product(range(len(places)), range(windows.tokens), range(windows.tokens)):
        if mask[w, i, j] and places[w, i] >= 0:
            seen.add((int(places[w, i]), int(places[w, j])))
    assert seen == {(a, b) for a, b in product(range(count), repeat=2) if cell(a, windows) == cell(b, windows)}
    assert windows.masks or mask.all()


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (1, 5), (3, 11)])
@pytest.mark.parametrize("window", [(4, 4), (2, 3), (8, 3)])
@pytest.mark.parametrize("shift", [(0, 0), (1, 2), (0, 1)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "".join(kind) or "plain")
def test_who_sees_whom(size: tuple, window: tuple, shift: tuple, kind: dict) -> None:
    if kind.get("centred") and any(shift):
        pytest.skip("centred windows are not shifted")
    windows = Windows(size, window, shift, **kind)
    check_who_sees_whom(windows, cell)


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (1, 5), (3, 11), (12, 4)])
@pytest.mark.parametrize("window", [(4, 4), (2, 3), (8, 3)])
@pytest.mark.parametrize("spare", [(0, 0), (1, 2)])
def test_who_sees_whom_apart(size: tuple, window: tuple, spare: tuple) -> None:
    """Tokens as far apart as a window has to step to reach over the map, from its first row and column on."""

    def apart(place: int, windows: Windows) -> tuple[int, int]:
        first, second = (p % -(-n // w) for p, n, w in zip(divmod(place, size[1]), size, window))
        return first, second

    windows = Dilated(size, window, spare=spare)
    check_who_sees_whom(windows, apart)


@pytest.mark.parametrize("size", [(7, 9), (12, 16), (1, 5), (3, 11)])
@pytest.mark.parametrize("window", [(3, 4), (2, 3)])
@pytest.mark.parametrize("interval", [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("options", [{}, {"centred": True}, {"spare": ()}], ids=str)
def test_who_sees_whom_in_regions(size: tuple, window: tuple, interval: tuple, options: dict) -> None:
    """Of each region, as many times as large as a window, the tokens that are the interval apart."""
    regions = [w * i for w, i in zip(window, interval)]
    before = [-n % region // 2 if options.get("centred") else 0 for n, region in zip(size, regions)]

    def cell(place: int, windows: Windows) -> tuple[int, int]:
        axes = zip(divmod(place, size[1]), before, regions, interval)
        first, second = ((p + b) // region * i + (p + b) % i for p, b, region, i in axes)
        return first, second

    if "spare" in options:
        options = {"spare": interval}
    check_who_sees_whom(Dilated(size, window, interval=interval, **options), cell)


def test_trailing_axes_and_samples() -> None:
    windows = Windows((5, 6), (3, 4), (1, 2))
    x = torch.randn(2, 5, 6, 3, 2, 4)
    tokens = windows.split(x)
    assert tokens.shape == (2 * windows.number, 12, 3, 2, 4)
    torch.testing.assert_close(windows.join(tokens.flatten(2)), x.flatten(3))


@pytest.mark.parametrize("size", [(6, 8), (5, 6)])
def test_trailing_axes_and_samples_apart(size: tuple) -> None:
    windows = Dilated(size, (3, 4))
    x = torch.randn(2, *size, 3, 2, 4)
    tokens = windows.split(x)
    assert tokens.shape == (2 * windows.number, 12, 3, 2, 4)
    torch.testing.assert_close(windows.join(tokens.flatten(2)), x.flatten(3))
