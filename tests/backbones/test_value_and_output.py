"""The sites around attention: called in every backbone, in order, and where no part acts there, not at all."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import timm
import torch
from adapted_models import images, original
from conftest import randomize, tiny_vit
from tiny_backbones import MODELS
from tiny_voxels import cloud, tiny
from torch import Tensor

import visionpe
from visionpe import Composition, Grid, PositionEncoding, registry
from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.encoded import encoded_attention


class Halves(PositionEncoding):
    """Doubles values ahead of attention and halves its output: nothing comes of it where both are called once."""

    irregular = takes_pooled = True
    calls: ClassVar[list[str]] = []

    def value(self, v: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        self.calls.append("value")
        return 2 * v

    def output(self, attended: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        self.calls.append("output")
        return attended / 2


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENCODINGS, "halves", Halves)
    monkeypatch.setattr(Halves, "name", "halves")
    Halves.calls.clear()


def check(plain: torch.nn.Module, told: torch.nn.Module, x: Any) -> None:
    told.load_state_dict(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(told(x), plain(x), atol=1e-5, rtol=1e-5)
    assert Halves.calls
    assert Halves.calls == ["value", "output"] * (len(Halves.calls) // 2)


@pytest.mark.parametrize("family", MODELS)
def test_backbones(family: str) -> None:
    plain, told = (
        randomize(timm.create_model(family, pos_encoding=spec, num_classes=3, **MODELS[family]))
        for spec in ("none", "halves")
    )
    check(plain, told, torch.randn(2, 3, 32, 32))


def test_voxels() -> None:
    plain, told = tiny("none"), tiny("halves")
    voxels = cloud()
    double = type(voxels)(voxels.features.double(), voxels.coords, voxels.signals.double())
    check(plain, told, double)


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("vit_tiny_patch16_224", SMALL),
        ("eva02_tiny_patch14_224", SMALL),
        ("hiera_tiny_224", {"img_size": 64, "embed_dim": 32, "stages": (1, 1, 1, 1)}),
        ("cait_xxs24_224", SMALL),
    ],
)
def test_adapted_models(name: str, keywords: dict[str, Any]) -> None:
    model = original(name, keywords)
    size = (keywords["img_size"],) * 2
    check(visionpe.adapt(model, pos_encoding="none"), visionpe.adapt(model, pos_encoding="halves"), images(size))


def test_refused_where_values_are_wider() -> None:
    small = {"embed_dim": (32, 48, 64), "key_dim": 8, "num_heads": (2, 3, 4), "depth": (2, 1, 1), "img_size": 112}
    with pytest.raises(ValueError, match="'halves' acts on values, which are 16 channels wide a head"):
        visionpe.adapt(original("levit_128s", small), pos_encoding="halves")


@pytest.mark.parametrize("wrapper", ["dropped", "cropped", "randomised"])
def test_wrappers_refuse(wrapper: str) -> None:
    with pytest.raises(ValueError, match="over='halves': what 'halves' does to values it undoes at the output"):
        visionpe.create_encoding(f"{wrapper}(halves)", dim=16, num_heads=2)


class Plus(Halves):
    """Another one, which does not commute with it."""

    name = "plus"

    def value(self, v: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        return v + 1

    def output(self, attended: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        return attended - 1


class Spy(PositionEncoding):
    name = "spy"

    def mix(self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: Any = None) -> Tensor:
        return torch.stack((attended, v))


def test_order() -> None:
    """What acted last on the values is undone first; `mix` has the values as they were, and what was undone."""
    v, grid = torch.randn(1, 2, 6, 8), Grid((2, 3))

    def attended(told: Tensor, weights: AttentionWeights) -> tuple[Tensor, AttentionWeights]:
        assert torch.equal(told, 2 * v + 1)
        return told, weights

    encoding = Composition([cls(dim=16, num_heads=2) for cls in (Halves, Plus, Spy)])
    out, seen = encoded_attention(v, v, v, encoding, grid, attended=attended)
    torch.testing.assert_close(out, v)
    assert torch.equal(seen, v)


def test_values_are_handed_on_where_nothing_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(Composition, "value", refuse)
    monkeypatch.setattr(Composition, "output", refuse)
    tiny_vit("rope_mixed+ape")(torch.randn(1, 3, 24, 24))
    with pytest.raises(AssertionError, match="called"):
        tiny_vit("halves")(torch.randn(1, 3, 24, 24))
