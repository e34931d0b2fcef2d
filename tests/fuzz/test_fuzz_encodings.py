"""Every encoding: its options, the model it is built for, and where the tokens stand."""

from __future__ import annotations

from typing import Any

import torch
from conftest import ENCODINGS
from fuzz_outcomes import fuzz, judge
from fuzz_values import some_of, value
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import visionpe
from visionpe import Composition, Grid, create_encoding
from visionpe.attention.dispatch import AttentionWeights, attend
from visionpe.registry import _ENCODINGS, _WRAPPERS, _keywords

CONTEXT = {"dim", "num_heads", "depth", "grid_size", "device", "over"}
GRIDS = ((6, 6), (4, 7), (1, 1), (1, 5), (3, 4, 5), (5,), (2, 2, 2, 2))
SIZES = (*GRIDS, (9, 3), (12, 13))


def names_of(cls: Any) -> list[str]:
    return sorted(_keywords(cls) - CONTEXT)


@st.composite
def specs(draw: Any) -> dict[str, Any]:
    """An encoding with options, maybe under a wrapper with others."""
    name = draw(st.sampled_from(ENCODINGS))
    spec = {"name": name, **draw(some_of(names_of(_ENCODINGS[name])))}
    if draw(st.integers(0, 4)) == 0:
        over = draw(st.sampled_from(visionpe.list_wrappers()))
        spec = {"name": over, "over": spec, **draw(some_of(names_of(_WRAPPERS[over]), most=2))}
    return spec


@st.composite
def contexts(draw: Any) -> dict[str, Any]:
    context: dict[str, Any] = {"dim": 32, "num_heads": 2, "depth": 2, "grid_size": draw(st.sampled_from(GRIDS))}
    if draw(st.integers(0, 4)) == 0:
        context |= draw(some_of(["dim", "num_heads", "depth", "grid_size", "device", "dtype"], most=1))
    return context


@st.composite
def coordinates(draw: Any, size: tuple[int, ...]) -> Tensor | None:
    """Explicit ones for a few tokens, most of which no encoding can read."""
    usual = ("none",) * 8 + ("whole", "batch", "real") * 2
    kind = draw(st.sampled_from((*usual, "below", "far", "nan", "axes", "flat")))
    if kind == "none":
        return None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    places = (torch.rand(2, 5, len(size), generator=generator) * torch.tensor(size)).floor()
    changed = {
        "batch": places,
        "real": places[0] + 0.25,
        "below": places[0] - 3,
        "far": places[0] + 1e6,
        "nan": places[0] * float("nan"),
        "axes": places[0].repeat(1, 2),
        "flat": places[0].flatten(),
    }
    return changed.get(kind, places[0].long() if draw(st.booleans()) else places[0])


@torch.no_grad()
def run(spec: Any, context: dict[str, Any], place: dict[str, Any], dtype: torch.dtype, train: bool) -> list[Tensor]:
    """All sites, as a block calls them."""
    built = create_encoding(spec, **context)
    encoding = (built if isinstance(built, Composition) else Composition([built])).train(train).to(dtype)
    grid, dim, heads = Grid(**place), context["dim"], context["num_heads"]
    batch = 2 if grid.coords is None or grid.coords.ndim < 3 else len(grid.coords)
    x = encoding.add(torch.randn(batch, grid.num_spatial, dim, dtype=dtype), grid)
    x = torch.cat((torch.randn(batch, grid.prefix, dim, dtype=dtype), x), dim=1)
    x = encoding.inject(x, grid, layer=0)
    q, k, v = (torch.randn(batch, heads, grid.num_tokens, dim // heads, dtype=dtype) for _ in range(3))
    biases, rule = encoding.bias(q, k, grid, layer=0, tokens=x), encoding.logit_rule(grid)
    scale = None if rule is None else rule.factor * (dim // heads) ** -0.5
    carried = encoding.carrying(grid, ())
    q, k = encoding.rotate(q, k, grid, layer=0, tokens=x, carried=carried)
    y = attend(q, k, encoding.value(v, grid, layer=0, carried=carried), biases=biases, scale=scale)
    y = encoding.output(y, grid, layer=0, carried=carried)
    if carried is not None:
        encoding.carry(x, grid, carried, layer=0)
    y = encoding.mix(y, v, grid, layer=0, weights=AttentionWeights(q, k, biases, scale=scale))
    return [encoding.refine(x, grid, layer=0), y]


@st.composite
def cases(draw: Any) -> tuple[Any, ...]:
    context = draw(contexts())
    size = draw(st.sampled_from(SIZES))
    if draw(st.integers(0, 3)):
        axes = len(context["grid_size"]) if isinstance(context["grid_size"], tuple) else 2
        size = draw(st.sampled_from([s for s in SIZES if len(s) == axes] or [size]))
    place = {"size": size, "prefix": draw(st.sampled_from((0, 1, 3))), "coords": draw(coordinates(size))}
    dtype = draw(st.sampled_from((torch.float32,) * 4 + (torch.float64, torch.bfloat16, torch.float16)))
    return draw(specs()), context, place, dtype, draw(st.booleans())


@fuzz(0.4, 250)
@given(cases())
def test_encodings(case: tuple[Any, ...]) -> None:
    judge("encodings", lambda: run(*case), case)


@fuzz(0.02, 40)
@given(value(), contexts())
def test_specifications(spec: Any, context: dict[str, Any]) -> None:
    specs = (spec, {"name": spec}, [spec, "ape"], {"name": "ape", spec if isinstance(spec, str) else "x": spec})
    for each in specs:
        judge("specifications", lambda each=each: create_encoding(each, **context).state_dict(), (each, context))
