"""Weights trained under a wrapper load into a model without it and back, strictly, in every backbone."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import randomize

import visionpe
from visionpe import registry

STAGES = dict(embed_dim=32, depths=(1, 1), num_heads=(2, 2), num_classes=3, img_size=64)
PLAIN = dict(embed_dim=32, depth=4, num_heads=2, num_classes=3, img_size=64)
MODELS = {
    "none_vit_ti": PLAIN,
    "none_vitdet_b": PLAIN | dict(window_size=3),
    "none_swin_t": STAGES | dict(window_size=4),
    "none_cswin_t": STAGES,
}
PAIRS = [
    ("ape", "dropped(ape)"),
    ("ape", "cropped(ape)"),
    ("ape", "dropped(cropped(ape))"),
    ("sincos", "randomised(sincos)"),
    ("fourier", "cropped(fourier)"),
    ("lape", "dropped(lape)"),
    ("lape(sincos)", "dropped(lape(sincos))"),
    ("abswin", "dropped(abswin)"),
    ("seqpe", "randomised(seqpe)"),
    ("cpe", "dropped(cpe)"),
    ("lepe", "dropped(lepe)"),
    ("rope_mixed+ape", "randomised(rope_mixed)+dropped(ape)"),
    ("alibi", "cropped(alibi)"),
    ("cpb", "cropped(cpb)"),
]
# In every backbone, the wrappers over and under each other; the rest in the ViT, and in the long suite.
OFTEN = ("dropped(cropped(ape))", "dropped(lape(sincos))", "randomised(rope_mixed)+dropped(ape)", "dropped(lepe)")
CASES = [
    (name, *pair)
    if name in ("none_vit_ti", "none_swin_t") or pair[1] in OFTEN
    else pytest.param(name, *pair, marks=pytest.mark.long)
    for name in MODELS
    for pair in PAIRS
]


@pytest.mark.parametrize(("name", "plain", "wrapped"), CASES)
@torch.no_grad()
def test_there_and_back(name: str, plain: str, wrapped: str) -> None:
    a, b = (timm.create_model(name, pos_encoding=spec, **MODELS[name]).eval() for spec in (plain, wrapped))
    assert a.state_dict().keys() == b.state_dict().keys()
    for larger in (64, 96):
        x = torch.randn(1, 3, larger, larger)
        for source, target in ((a, b), (b, a)):
            randomize(source)
            target.load_state_dict(source.state_dict())
            torch.testing.assert_close(target(x), source(x), atol=1e-5, rtol=1e-5)


def table_policies(model: torch.nn.Module) -> set[str | None]:
    return {part.policy for part in model.modules() if getattr(part, "name", "") == "ape"}


@pytest.mark.parametrize("over", ["lape(ape)", "dropped(lape(ape))", "dropped(ape)", "dropped(cropped(ape))", "ape"])
def test_hints_reach_what_stands_under(over: str) -> None:
    """Windows of the model's attention, for the policy that repeats them, and that there are no prefix tokens."""
    model = timm.create_model("none_vitdet_b", pos_encoding=over, **MODELS["none_vitdet_b"])
    visionpe.set_policy(model, "window_aware")  # refuses where the window is not known
    assert not any("prefix_table" in key for key in model.state_dict())
    assert table_policies(model) == {"window_aware"}


def test_a_window_that_the_user_names_counts() -> None:
    spec = {"name": "dropped", "over": {"name": "abswin", "window": 5}}
    model = timm.create_model("none_vitdet_b", pos_encoding=spec, **MODELS["none_vitdet_b"])
    assert model.pos_encoding.map.abswin.window_table.shape[:2] == (5, 5)


def test_an_encoding_of_the_users_over_another_gets_no_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before: only what says so hands them on."""

    class Over(visionpe.PositionEncoding):
        def __init__(self, *, over: str = "ape", **context: object) -> None:
            super().__init__(**context)

        def add(self, x: torch.Tensor, grid: visionpe.Grid) -> torch.Tensor:
            return x

    monkeypatch.setitem(registry._ENCODINGS, "test_over_another", Over)  # for this test alone
    monkeypatch.setattr(Over, "name", "test_over_another")
    timm.create_model("none_vitdet_b", pos_encoding="test_over_another", **MODELS["none_vitdet_b"])


@pytest.mark.parametrize("spec", ["ape", "dropped(ape)", "dropped(cropped(ape))"])
def test_policies_of_files_reach_tables_under_wrappers(spec: str) -> None:
    """The resize of the code that the file comes from, and ViTDet's."""
    model = timm.create_model("none_vit_ti", pos_encoding=spec, **PLAIN)
    file = {
        k.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): v for k, v in model.state_dict().items()
    }
    file["pos_embed"] = file.pop("pos_encoding.ape.table").flatten(0, 1)[None]
    model.load_state_dict(file)
    assert model.pos_encoding.ape.policy == "bicubic"
    windowed = timm.create_model("none_vitdet_b", pos_encoding=spec, **MODELS["none_vitdet_b"])
    assert table_policies(windowed) == {"bicubic"}


@pytest.mark.parametrize("spec", ["lape(ape)", "dropped(lape(ape))"])
def test_tables_under_lape_are_resized_as_those_without(spec: str) -> None:
    model = timm.create_model("none_vitdet_b", pos_encoding=spec, **MODELS["none_vitdet_b"])
    assert table_policies(model) == {"bicubic"}
