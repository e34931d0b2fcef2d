"""Options out of range, and coordinates that an encoding cannot read, are refused by name."""

from __future__ import annotations

import time
from math import inf, nan
from typing import Any

import pytest
import torch
from conftest import randomize
from small_encodings import DIM, HEADS

import visionpe
from visionpe import Grid, create_encoding

# Encoding -> option -> what it may not be. A NaN passes every `value <= 0`.
POSITIVE = (0, -1, nan, inf, "3", None, True, [1.0])
COUNT = (0, -1, 0.5, nan, "3", True, 99999)
STD = (-0.1, nan, inf, "1", True)
FLAG = ("no", None, 2, nan)
REFUSED: dict[str, dict[str, tuple[Any, ...]]] = {
    "ape": {"init_std": STD, "attention_window": (0, 0.5, (1,), nan), "policy": (["bilinear"], 3)},
    "abswin": {"init_std": STD, "window": COUNT, "background": COUNT, "form": (None, ["sam2"])},
    "sincos": {"interleaved": FLAG, "temperature": POSITIVE},
    "fourier": {"features": COUNT, "hidden": COUNT, "gamma": POSITIVE, "groups": COUNT},
    "lape": {"eps": POSITIVE, "prefix_slots": (-1, 0.5, nan, "1", 99999)},
    "every_block": {"shared": FLAG, "prefix_slots": (-1, 0.5, nan, "1", 99999)},
    "seqpe": {
        **dict.fromkeys(("encoder_dim", "encoder_heads", "encoder_layers", "max_digits"), COUNT),
        "temperature": POSITIVE,
        "causal": FLAG,
        "final_norm": FLAG,
        "mask_padding": FLAG,
    },
    "rope_axial": {
        "theta": POSITIVE,
        "p": (-0.1, 1.1, nan, "1"),
        "fractional": FLAG,
        "layout": (None, [], "quarter"),
        "grid_indexing": (None, "yx", 1),
        "grid_offset": (nan, inf, "1", None, 1e9),
        "ref_feat_shape": (0, -1, 0.5, "7", (7,), (7, 7, 7), (7, 0), 1e9),
        "mrope_section": (8, (8, 12), (-1, 2, 2), (0.5, 1, 1), "abc"),
    },
    "rope_mixed": {"theta": POSITIVE},
    "tape": {"theta": POSITIVE, "hidden": tuple(v for v in COUNT if v is not None), "layout": (None, "split")},
    "rope_norm": {
        "grid_indexing": (None, "yx"),
        "ref_feat_shape": (0, 7, (7, 7), "7"),
        **{name: tuple(v for v in POSITIVE if v is not None) for name in ("base", "shift_coords")},
        **dict.fromkeys(("jitter_coords", "rescale_coords"), (0.5, nan, inf, "2")),
    },
    "rope_golden": {"min_freq": POSITIVE, "max_freq": POSITIVE, "spread": (None, "cube"), "ref_feat_shape": (7,)},
    "rpb_axes": {"reach": (0, -1, 0.5, nan, "3", True, 10**7), "init_std": STD},
    "xcpe": {"kernel_size": (0, 2, -1, 0.5, nan, "3")},
    "xl": {"bands": COUNT, "theta": POSITIVE, "init_std": STD},
    "shaw": {
        "clip": (0, -1, 0.5, nan, "3", True, 10**7),
        "values": FLAG,
        "prefix_slots": (-1, 2, 0.5, "1"),
        "init_std": STD,
    },
    "deberta": {
        "buckets": (*COUNT[:-1], 1, 10**7),
        "longest": (0, 5, 0.5, nan, "9", 10**7),
        "terms": (None, "q"),
        "form": (None, "published"),
        "norm": FLAG,
        "shared": FLAG,
        "init_std": STD,
    },
    "carope": {
        "theta": tuple(v for v in (*POSITIVE, 1) if v is not None),
        "layout": (None, "axis_half"),
        "token_dim": COUNT,
    },
    "liere": {"block_size": (0, 1, 3, 0.5, nan, "4")},
    "pape": {"parabolas": COUNT, "form": (None, "cubic"), "prefix_position": (nan, inf, "0", 1e5), "token_dim": COUNT},
    "prope": {"theta": POSITIVE, "layout": (None, "split"), "shift_coords": (0.1,), "jitter_coords": (1.1,)},
    "gta": {
        "se3": (-4, 2, 20, 0.5, nan, "4"),
        "so2": (-4, 6, 12, 0.5, nan, "4"),
        "max_freq": POSITIVE,
        "scale": (nan, inf, "1"),
        "learned": FLAG,
        "rescale_coords": (1.1,),
    },
    "rays": {
        "kind": (None, "plücker"),
        "frame": (None, "last"),
        "points": COUNT,
        "near": (-1, nan, inf, "1"),
        "far": (0, 0.5, nan, inf, "1"),
        "focal": POSITIVE,
        "hidden": COUNT,
    },
    "pope": {"theta": POSITIVE, "phase_init": (None, "normal"), "layout": ("half", "axis_half")},
    "rope_raster": {"theta": POSITIVE, "layout": (None, "axis_half")},
    "rope_vjepa": {"theta": POSITIVE, "frames": FLAG, "unequal": FLAG},
    "rope_spiral": {
        "directions": (0, 1, 3, 0.5, nan, "4"),
        "theta": POSITIVE,
        "max_freq": POSITIVE,
        "shared": FLAG,
        "form": (None, "turned"),
    },
    "comrope": {"init_std": STD, "prefix_position": (nan, inf, "0", 1e5), "block_size": (0, 1, 0.5, nan, "4")},
    "rpb": {"init_std": STD, "gain": POSITIVE, "shared": FLAG, "prefix_slots": (-1, 2, 0.5, "1")},
    "decomposed": {"init_std": STD},
    "cpb": {"shared": FLAG, "hidden": COUNT, "form": (None, ["raw"], "cr"), "dropout": (-0.1, 1.1, nan, "1", True)},
    "dpb": {"hidden": COUNT},
    "fire": {"hidden": COUNT, "c": POSITIVE},
    "irpe": {"ratio": (*POSITIVE, 0.25, 99999), "shared": FLAG, "on": (None, 3), "method": (None, {})},
    "crse": {"init_std": STD, "quant_size": COUNT, "signals": (None, 3)},
    "lookhere": {"global_slope": (-1, nan, inf, "1"), "layer_slopes": ((1.0, nan), (1.0,), "ab", 1), "rounded": FLAG},
    "manhattan": {"init_value": (*POSITIVE, 99999), "decay_range": (-1, nan, inf, "1")},
    "cpe": {
        "kernel_size": (0, 2, 1.5, nan, "3", 99999),
        "layers": ((0.5,), (), (5,), (0, 0), 0, "0", (nan,)),
        "ahead": FLAG,
    },
    "lepe": {"kernel_size": (0, 2, 1.5, nan, "3", 99999)},
    "dropped(ape)": {"rate": (-0.1, 1.1, nan, "1", True)},
    "cropped(ape)": {"enlarge": (0.5, nan, inf, "2"), "scale": ((nan, 1.0), (0.5,), "ab"), "aspect": ((1.0, inf), 3)},
    "randomised(ape)": {"range": (0, 0.5, nan, (9,), (8, 0.5), "99")},
}
CASES = [(name, option, value) for name, all_ in REFUSED.items() for option, some in all_.items() for value in some]


def make(name: str, **options: Any) -> Any:
    outer, _, inner = name.rstrip(")").partition("(")
    context = {"dim": DIM, "num_heads": HEADS, "depth": 2, "grid_size": (4, 5)}
    spec = {"name": outer, **({"over": inner} if inner else {}), **options}
    return create_encoding(spec, **context)


def use(encoding: Any, grid: Grid) -> None:
    """All sites, one after the other."""
    x, q = torch.randn(1, grid.num_spatial, DIM), torch.randn(1, HEADS, grid.num_spatial, DIM // HEADS)
    encoding.add(x, grid)
    encoding.inject(x, grid)
    encoding.refine(x, grid)
    read = {"tokens": x} if encoding.reads_tokens else {}
    encoding.rotate(q, q, grid, **(read if "rotate" in encoding.sites() else {}))
    encoding.bias(q, q, grid, **(read if "bias" in encoding.sites() else {}))
    encoding.mix(q, q, grid)


def test_options_are_refused() -> None:
    started = time.perf_counter()
    for name, option, value in CASES:
        if (name, option) == ("rope_norm", "shift_coords") and value in (0, True):
            continue  # zero moves nothing
        with pytest.raises((ValueError, TypeError), match=rf"{option}=") as caught:
            make(name, **{option: value})
        assert "allowed" in str(caught.value) or "must" in str(caught.value), (name, option, value)
    assert time.perf_counter() - started < 20  # huge ones are refused before anything of their size is made


@pytest.mark.parametrize("option", ["dim", "num_heads", "depth", "grid_size", "dtype", "device"])
def test_context_is_refused(option: str) -> None:
    good: dict[str, Any] = {"dim": DIM, "num_heads": HEADS, "grid_size": (4, 5)}
    for value in (0, -1, 0.5, nan, "x", [], (3, 0.5), 10**6):
        if option == "device" and value in (0, -1, 10**6):
            continue
        with pytest.raises((ValueError, TypeError), match=f"{option}="):
            create_encoding("ape", **{**good, option: value})


@pytest.mark.parametrize("name", ["ape", "abswin", "rpb", "decomposed", "crse", "shaw"])
def test_tables_of_zeros(name: str) -> None:
    """A standard deviation of zero is one; torch would divide by it."""
    encoding = make(name, init_std=0)
    encoding.reset_parameters()
    assert not any(parameter.any() for parameter in encoding.parameters())


@pytest.mark.parametrize("name", ["rpb", "attention_bias", "abswin", "irpe", "lookhere", "lepe"])
def test_axes(name: str) -> None:
    with pytest.raises(ValueError, match=r"grid_size=\(2, 3, 4\): .* two axes"):
        create_encoding(name, dim=DIM, num_heads=HEADS, grid_size=(2, 3, 4))


@pytest.mark.parametrize("name", visionpe.list_encodings())
def test_other_axes_than_built_for(name: str) -> None:
    encoding, grid = make(name), Grid((2, 3, 4))
    if encoding.sites():
        with pytest.raises(ValueError, match="was built for 2 axes, the tokens stand on 3"):
            use(encoding, grid)


@pytest.mark.parametrize(
    ("name", "places", "message"),
    [
        ("abswin", [[-1.0, 2.0]], "abswin finds -1 to -1 along an axis; allowed: 0 to 3"),
        ("abswin", [[0.0, 5.0]], "abswin finds 5 to 5 along an axis; allowed: 0 to 4"),
        ("abswin", [[0.5, 1.0]], "abswin reads whole coordinates, and some are not"),
        ("seqpe", [[-3.0, 2.0]], "seqpe finds -3 to -3 along an axis; allowed: 0 to 9999"),
        ("seqpe", [[0.0, 1e5]], "seqpe finds 100000 to 100000"),
        ("rpb", [[0.0, 0.0], [0.0, 5.0]], "rpb finds 0 to 5 along an axis; allowed: spans of 5 tokens"),
        ("attention_bias", [[0.0, 0.5]], "attention_bias reads whole coordinates"),
        ("decomposed", [[0.0, 0.0], [4.0, 0.0]], "decomposed finds 0 to 4 along an axis; allowed: spans of 4 tokens"),
        ("shaw", [[0.0, 0.0], [0.0, 5.0]], "shaw finds 0 to 5 along an axis; allowed: spans of 5 tokens"),
        ("deberta", [[0.0, 0.5]], "deberta reads whole coordinates, and some are not"),
        ("rope_axial", [[nan, 1.0]], "coords hold NaN or infinity"),
        ("sincos", [[inf, 1.0]], "coords hold NaN or infinity"),
        ("ape", [[nan, 1.0]], "coords hold NaN or infinity"),
    ],
)
def test_coordinates_are_refused(name: str, places: list[list[float]], message: str) -> None:
    grid, encoding = Grid((4, 5), coords=torch.tensor(places)), make(name)
    with pytest.raises(ValueError, match=message):
        use(encoding, grid)


def test_offsets_may_start_anywhere() -> None:
    places, q = torch.tensor([[-7.0, 3.0], [-5.0, 6.0]]), torch.randn(1, HEADS, 2, DIM // HEADS)
    for name in ("rpb", "decomposed", "shaw", "deberta"):
        encoding = randomize(make(name))
        near, far = (encoding.bias(q, q, Grid((4, 5), coords=c)).matrix(q.dtype) for c in (places, places + 7))
        torch.testing.assert_close(near, far)


@pytest.mark.parametrize("coords", [torch.ones(3), torch.ones(3, 3), torch.ones(2, 3).bool(), [[0, 1]]])
def test_what_is_no_coordinates(coords: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"coords=.*; allowed: "):
        Grid((4, 5), coords=coords)


def test_rotation_after_another_encoding() -> None:
    """Channels that another encoding left with steps between them."""
    rope, grid = make("rope_axial"), Grid((4, 5))
    q = torch.randn(1, HEADS, DIM // HEADS, 20).transpose(2, 3)
    for mine, wanted in zip(rope.rotate(q, q, grid), rope.rotate(q.contiguous(), q.contiguous(), grid)):
        torch.testing.assert_close(mine, wanted)
