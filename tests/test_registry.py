"""Names, specifications, errors, and encodings from outside."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import timm
import torch
from conftest import VIT_NAMES

import visionpe
from visionpe import Composition, Grid, PositionEncoding, create_encoding, register_encoding, registry
from visionpe.cache import TableCache
from visionpe.specification import parse_spec

CONTEXT = dict(dim=32, num_heads=2, depth=2, grid_size=(4, 4))


def test_specifications() -> None:
    assert create_encoding("ape", **CONTEXT).name == "ape"
    both = create_encoding("rope_mixed+ape", **CONTEXT)
    assert isinstance(both, Composition)
    assert list(both) == ["rope_mixed", "ape"]
    assert create_encoding({"name": "rope_mixed", "theta": 7}, **CONTEXT).theta == 7
    listed = create_encoding([{"name": "rope_axial", "theta": 50}, "cpe"], **CONTEXT)
    assert listed["rope_axial"].theta == 50
    assert listed.at("refine") == [listed["cpe"]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rope_mixt", r"encoding 'rope_mixt' is unknown; did you mean rope_mixed"),
        ("ape+", r"pos_encoding='ape\+': a name is missing beside a '\+'; allowed: 'a', 'a\+b'"),
        ("rope_mixed++ape", r"pos_encoding='rope_mixed\+\+ape': a name is missing"),
        ("", r"pos_encoding='': a name is missing; allowed"),
        ("(ape)", r"a name is missing"),
        ({"theta": 1}, r"lacks the key 'name'"),
        ({"name": "rope_mixed", "tehta": 1}, r"'rope_mixed' takes no option 'tehta'; did you mean theta\?"),
        ({"name": "ape", "policy": "interpolate"}, r"policy='interpolate' is unknown to 'ape'; allowed: bicubic_anti"),
        ({"name": "none", "policy": "bicubic"}, r"unknown to 'none'; allowed: none: it has no table"),
        ("ape+ape", r"names the same encoding twice"),
        (
            "rope_mixed(theta=1",
            r"pos_encoding='rope_mixed\(theta=1': its parentheses do not match; allowed: 'a', 'a\+b'",
        ),
        ("rope_mixed(theta=1]", r"its parentheses do not match"),
        ("rope_mixed(theta='1)", r"a quotation mark is open"),
        ("lape(ape, 3)", r"'3' is not option=value; allowed: .*'a\(b, option=value\)'"),
        ("lape(ape, over=sincos)", r"'over' is given twice"),
        ("ape(name=sincos)", r"'name' stands before the parentheses"),
        ("irpe(bias)", r"'irpe' goes over no other encoding; .* and options as irpe\(option=value\)"),
        ("irpe(mode=baas)", r"mode='baas' is unknown; allowed"),
        ("ape(n=1)x", r"its parentheses do not match"),
        ({"name": "cpe", "kernel_size": 4}, r"kernel_size=4 must be odd"),
        ({"name": "cpe", "kernel_size": 999}, r"kernel_size=999 is no odd number.*; allowed: 1, 3, 5, \.\.\. 127"),
        ({"name": "cpe", "layers": (5,)}, r"layers=\(5,\) must lie in 0..1"),
    ],
)
def test_bad_specifications(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_encoding(spec, **CONTEXT)
    with pytest.raises(ValueError, match=message):
        timm.create_model("none_vit_ti", pos_encoding=spec, depth=2)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("irpe(mode=bias)", [("irpe", {"mode": "bias"})]),
        ("irpe( mode = 'bias' , on='k' )+ape", [("irpe", {"mode": "bias", "on": "k"}), ("ape", {})]),
        (
            "rope_mixed(theta=1e2, policy=yarn(0.25, 1)+temperature)",
            [("rope_mixed", {"theta": 100.0, "policy": "yarn(0.25, 1)+temperature"})],
        ),
        ("dropped(rope_mixed(theta=10)+ape, end=0.5)", [("dropped", {"over": "rope_mixed(theta=10)+ape", "end": 0.5})]),
        ("cpe(layers=(0, 1))", [("cpe", {"layers": (0, 1)})]),
        ("ape()", [("ape", {})]),
        ("x(a='b+c(d', e=None, f=True)", [("x", {"a": "b+c(d", "e": None, "f": True})]),
    ],
)
def test_options_in_a_string(text: str, pairs: list) -> None:
    assert parse_spec(text) == pairs


def test_options_in_a_string_reach_the_encoding() -> None:
    encoding = create_encoding("rope_mixed(theta=7, policy=ntk)+lape(sincos(policy=extrapolate))", **CONTEXT)
    assert encoding["rope_mixed"].theta == 7
    assert encoding["rope_mixed"].policy == "ntk"
    assert timm.create_model("none_vit_ti", depth=1, pos_encoding="irpe(mode=bias)").pos_encoding["irpe"].mode == "bias"


def test_short_names_are_encodings_too() -> None:
    assert isinstance(create_encoding("rope", **CONTEXT), visionpe.get_encoding("rope_mixed"))
    assert list(create_encoding("rope+ape", **CONTEXT)) == ["rope_mixed", "ape"]
    # What names a model, without its family and size, is an encoding.
    for name in [*VIT_NAMES, "rope_mixed_vit_s", "rope_mixed_ape_vit_s"]:
        spec = re.sub(r"(?<=.)_ape$", "+ape", name.rsplit("_vit_", 1)[0])
        create_encoding(spec, **(CONTEXT | {"dim": 64}))
    short, long = (timm.create_model(f"{name}_vit_ti", depth=1) for name in ("rope", "rope_mixed"))
    assert short.state_dict().keys() == long.state_dict().keys()
    assert timm.get_pretrained_cfg("rope_mixed_vit_s").hf_hub_id == timm.get_pretrained_cfg("rope_vit_s").hf_hub_id
    with pytest.raises(ValueError, match="name='rope' is taken by MixedRoPE"):
        register_encoding("rope")(PositionEncoding)


def test_bad_types_and_shapes() -> None:
    for spec in ([], 3, {"name": 3}, b"ape"):
        with pytest.raises(TypeError, match="pos_encoding="):
            create_encoding(spec, **CONTEXT)
    with pytest.raises(ValueError, match="dim=30 is no multiple of num_heads=4"):
        create_encoding("ape", dim=30, num_heads=4)
    with pytest.raises(ValueError, match="head dimension 6; rope_axial turns channel pairs"):
        create_encoding("rope_axial", dim=12, num_heads=2)
    with pytest.raises(ValueError, match="dim=6 is no multiple of 4"):
        create_encoding("sincos", dim=6, num_heads=1)
    with pytest.raises(ValueError, match="pos_embed is timm's keyword"):
        timm.create_model("ape_vit_ti", pos_embed="learn")
    q = torch.zeros(1, 2, 8, 16)
    with pytest.raises(ValueError, match="rope_axial was built for 2 axes, the tokens stand on 3"):
        create_encoding("rope_axial", **CONTEXT).rotate(q, q, Grid((2, 2, 2)))


def test_policy_of_a_model() -> None:
    model = timm.create_model("rope_ape_vit_ti", depth=1)
    assert visionpe.policies(model)[:2] == ["extrapolate", "bicubic_antialias"]
    visionpe.set_policy(model, "bilinear")
    assert (model.pos_encoding["ape"].policy, model.pos_encoding["rope_mixed"].policy) == ("bilinear", "extrapolate")
    with pytest.raises(ValueError, match=r"policy='never' applies to no encoding of VisionTransformer; allowed: extra"):
        visionpe.set_policy(model, "never")
    assert visionpe.policies(timm.create_model("resnet18")) == []


def test_an_encoding_from_outside() -> None:
    try:

        @register_encoding("row_shift")
        class RowShift(PositionEncoding):
            def __init__(self, *, amount: float = 1.0, **context: object) -> None:
                super().__init__(**context)
                self.amount = torch.nn.Parameter(torch.tensor(amount))

            def add(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
                return x + self.amount * grid.positions(device=x.device)[:, :1]

        assert "row_shift" in visionpe.list_encodings()
        assert RowShift.sites() == ("add",)
        model = timm.create_model("row_shift_vit_ti", depth=1, num_classes=3)
        assert model(torch.randn(1, 3, 32, 48)).shape == (1, 3)
        spec = [{"name": "row_shift", "amount": 2.0}, "rope_mixed"]
        assert timm.create_model("none_vit_ti", depth=1, pos_encoding=spec).pos_encoding["row_shift"].amount == 2
        with pytest.raises(ValueError, match="'row_shift' takes no option 'amout'; did you mean amount"):
            create_encoding({"name": "row_shift", "amout": 1}, **CONTEXT)
        with pytest.raises(ValueError, match="name='row_shift' is taken by"):
            register_encoding("row_shift")(RowShift)
    finally:
        registry._ENCODINGS.pop("row_shift", None)
    with pytest.raises(TypeError, match="takes a PositionEncoding class"):
        register_encoding("plain")(dict)
    with pytest.raises(ValueError, match="name='a b' is no identifier"):
        register_encoding("a b")(PositionEncoding)


def test_cache_is_bounded_and_stays_behind() -> None:
    cache = TableCache(limit=3 * 4000)
    for i in range(10):
        cache.get(i, lambda: torch.zeros(1000))
    assert len(cache) == 3
    cache.get("large", lambda: torch.zeros(10000))
    assert len(cache) == 3
    assert cache.get(9, lambda: pytest.fail("was thrown away")) is not None
    assert len(copy.deepcopy(cache)) == 0
    assert len(pickle.loads(pickle.dumps(cache))) == 0


def test_axial_tables_are_shared_by_all_layers() -> None:
    model = timm.create_model("rope_axial_vit_ti", depth=4).eval()
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert len(model.pos_encoding["rope_axial"].cache) == 1
