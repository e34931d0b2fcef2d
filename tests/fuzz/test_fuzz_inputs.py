"""What built models are given: images, and clouds of voxels."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import torch
from fuzz_models import CLOUDS, IMAGES, SPECS, cloud, model
from fuzz_outcomes import fuzz, judge
from fuzz_values import value
from hypothesis import given
from hypothesis import strategies as st

from visionpe.sparse import Voxels, voxelize, voxels_of_points

SIDES = (24, 28, 32, 40, 48, 1, 2, 3, 5, 23, 0)
DTYPES = (*(torch.float32,) * 8, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.long, torch.bool)
METHODS = ("forward", "forward_features", "forward_intermediates", "train")


@st.composite
def images(draw: Any) -> tuple[Any, ...]:
    family = draw(st.sampled_from(IMAGES))
    spec = draw(st.sampled_from([spec for spec in SPECS if spec != "crse"]))
    shape = [draw(st.sampled_from((2, 1, 0))), 3, draw(st.sampled_from(SIDES)), draw(st.sampled_from(SIDES))]
    broken = draw(st.sampled_from((None,) * 6 + ("less", "more", "channels", "other")))
    shape = {"less": shape[1:], "more": [1, *shape], "channels": [2, 4, 24, 24]}.get(broken, shape)
    other = draw(value()) if broken == "other" else None
    indices = draw(st.one_of(st.sampled_from((None, None, 1, (0,), (1, 0), (-1, 0))), value("indices")))
    dtype, method = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(METHODS))
    return family, spec, shape, dtype, other, method, indices, draw(st.sampled_from((False, False, True)))


def see(
    family: str, spec: str, shape: list[int], dtype: torch.dtype, other: Any, method: str, indices: Any, autocast: bool
) -> Any:
    network: Any = model(family, spec)
    x = torch.randn(shape).mul(50).to(dtype) if other is None else other
    if method == "train":
        y = network.train()(x)
        y.square().sum().backward()
        return [y, *(p.grad for p in network.parameters() if p.grad is not None)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        if method == "forward_intermediates":
            return network.forward_intermediates(x, indices=indices)
        return getattr(network, method)(x)


@fuzz(0.1, 70)
@given(images())
def test_images(case: tuple[Any, ...]) -> None:
    judge("images", lambda: see(*case), case)


# Part of a cloud -> how it may be wrong, or only unusual.
WRONG = {
    "features": ("half", "long", "nan", "row", "columns", "flat", "none", "list"),
    "coords": ("float", "half", "fraction", "negative", "unsorted", "twice", "huge", "nan", "empty", "flat", "bool"),
    "signals": ("double", "half", "metres", "far", "nan", "inf", "row", "columns", "none", "cell", "bytes"),
    "stride": (0, -1, 2, 1.5, nan, "a", None, True),
}


@st.composite
def clouds(draw: Any) -> tuple[Any, ...]:
    family = draw(st.sampled_from(CLOUDS))
    spec = draw(st.sampled_from(("crse", "rope_mixed", "cpe", "alibi", "randomised(fourier)", "dropped(sincos)")))
    part = draw(st.sampled_from((None, *WRONG, *WRONG)))
    how = None if part is None else draw(st.sampled_from(WRONG[part]))
    count = draw(st.sampled_from((40, 40, 7, 2, 1)))
    return (
        family,
        spec,
        part,
        how,
        count,
        draw(st.integers(0, 5)),
        draw(st.sampled_from(("voxels", "tuple", "list", "two"))),
    )


def changed(t: torch.Tensor, part: str, how: str) -> Any:
    """One part of a cloud, otherwise than it should be."""
    if how in ("nan", "inf", "fraction", "huge", "cell"):
        t = t.float().clone()
        t[len(t) // 2, -1 if how != "cell" else 0] += {
            "nan": nan,
            "inf": inf,
            "fraction": 0.5,
            "huge": 1e12,
            "cell": 3,
        }[how]
        return t
    casts = {"half": torch.float16, "long": torch.long, "float": torch.float32, "double": torch.float64}
    casts |= {"bool": torch.bool, "bytes": torch.uint8}
    if how in casts:
        return t.to(casts[how])
    simple: dict[str, Any] = {
        "row": t[:-1],
        "columns": t[:, :-1],
        "flat": t.flatten(),
        "none": None,
        "list": t.tolist(),
        "empty": t[:0],
        "metres": torch.cat((t[:, :3] * 0.02, t[:, 3:]), dim=1),
        "far": t * 300,
        "negative": t - torch.tensor([0, 50, 50, 50])[: t.shape[1]] if part == "coords" else -t,
        "unsorted": t.flip(0),
        "twice": torch.cat((t[:1], t[:-1])),
    }
    return simple[how]


def walk(family: str, spec: str, part: str | None, how: Any, count: int, seed: int, form: str) -> Any:
    good = cloud(count, seed)
    parts: dict[str, Any] = {"features": good.features, "coords": good.coords, "signals": good.signals, "stride": 1}
    if part == "stride":
        parts["stride"] = how
    elif part is not None:
        parts[part] = changed(parts[part], part, how)
    given_ = tuple(parts.values())
    x: Any = {"tuple": given_[:3], "list": list(given_), "two": given_[:2]}.get(form)
    with torch.no_grad():
        return model(family, spec).train(seed % 2 == 1)(Voxels(*given_) if x is None else x)


@fuzz(0.06, 90)
@given(clouds())
def test_clouds(case: tuple[Any, ...]) -> None:
    judge("clouds", lambda: walk(*case), case)


@st.composite
def points(draw: Any) -> tuple[Any, ...]:
    kind = draw(st.sampled_from(("good", "good", "nan", "far", "long", "empty", "flat", "none", "bool")))
    size = draw(st.one_of(st.sampled_from((0.1, 0.5, 1, 2.0)), value()))
    return kind, size, draw(st.sampled_from((None, "good", "bytes", "short", "none"))), draw(st.booleans())


def pack(kind: str, size: Any, colors: str | None, whole: bool) -> Any:
    t = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) * 4
    kinds = {"nan": t * nan, "far": t * 1e15, "long": t.long(), "empty": t[:0], "flat": t.flatten(), "none": None}
    given_: Any = kinds.get(kind, t) if kind != "bool" else t > 2
    looks = {"good": t / 4, "bytes": (t * 60).byte(), "short": t[:3], "none": "red"}
    if whole:
        return voxels_of_points(given_, size=size, colors=looks.get(colors or ""))[0].checked()
    return voxelize(given_, size=size)[0]


@fuzz(0.02, 60)
@given(points())
def test_points(case: tuple[Any, ...]) -> None:
    judge("points", lambda: pack(*case), case)
