"""Models as backbones of detectors, and the neck after them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fuzz_models import TINY
from fuzz_outcomes import fuzz, judge
from fuzz_values import policy, some_of, value
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mmengine")

from visionpe.detection import SimpleFeaturePyramid, TimmFeatures

OPTIONS = ["frozen_stages", "drop_path_rate", "with_cp", "autocast", "channels", "strides", "pad_to", "in_chans"]
INDICES = ((0,), (1,), (0, 1), (1, 0), (-1,), (0, 0), (5,), (), [1])
PATCHES = (4, (4, 8), (8, 4), (6, 4), 3, 0)


@st.composite
def backbones(draw: Any) -> tuple[Any, ...]:
    family = draw(st.sampled_from(("vit", "vitdet", "swin", "cswin", "crossformer")))
    options = draw(some_of(OPTIONS, most=1))
    options["out_indices"] = draw(st.one_of(st.sampled_from(INDICES), st.sampled_from(INDICES), value("out_indices")))
    if draw(st.booleans()):
        options["patch_size"] = draw(st.sampled_from(PATCHES))
    if draw(st.integers(0, 4)) == 0:
        options["policy"] = draw(policy(["interpolate", "bilinear"]))
    return family, options, draw(st.sampled_from(((24, 32), (31, 17), (64, 40), (1, 1))))


def features(family: str, options: dict[str, Any], size: tuple[int, int]) -> Any:
    name, settings = TINY[family]
    settings = {key: option for key, option in settings.items() if key != "num_classes"}
    backbone = TimmFeatures(name, **{**settings, **options}).eval()
    maps = backbone(torch.randn(1, 3, *size))
    for each, (down, right), channels in zip(maps, backbone.steps, backbone.channels, strict=True):
        assert each.shape[1:] == (channels, -(-size[0] // down), -(-size[1] // right))
    return maps


@fuzz(0.03, 25)
@given(backbones())
def test_features(case: tuple[Any, ...]) -> None:
    judge("detection backbones", lambda: features(*case), case)


@st.composite
def necks(draw: Any) -> dict[str, Any]:
    options = {"in_channels": draw(st.one_of(st.just(16), value("embed_dim")))}
    scales = st.sampled_from(
        ((4, 2, 1, 0.5), (1,), (2.0,), (3,), (0,), (-1,), (float("nan"),), (float("inf"),), (), "12")
    )
    options["scales"] = draw(st.one_of(scales, scales, value("scales")))
    return options | draw(some_of(["out_channels", "num_outs"], most=1))


def pyramid(options: dict[str, Any]) -> Any:
    neck = SimpleFeaturePyramid(**options)
    width = options["in_channels"] if isinstance(options["in_channels"], int) else options["in_channels"][-1]
    return neck([torch.randn(1, width, 16, 16)])


@fuzz(0.01, 40)
@given(necks())
def test_pyramid(options: dict[str, Any]) -> None:
    judge("detection necks", lambda: pyramid(options), options)
