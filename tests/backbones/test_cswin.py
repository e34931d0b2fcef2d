"""CSWin: parity with the official code, stripes at every size, any encoding in them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from conftest import ELSEWHERE, randomize, tiny_spec
from reference_files import close, read
from timm.optim import param_groups_layer_decay
from torch.export import Dim

from visionpe.backbones import CSWinTransformer
from visionpe.backbones.shared.windows import Windows
from visionpe.registry import _ENCODINGS

TINY: dict[str, Any] = dict(
    img_size=64,
    embed_dim=16,
    depths=(1, 1, 2, 1),
    num_heads=(2, 2, 4, 4),
    stripe_widths=(1, 2, 2, 2),
    mlp_ratio=2.0,
    num_classes=5,
)
OFFICIAL: dict[str, Any] = {**TINY, "embed_dim": 8, "num_heads": (2, 2, 4, 8)}
DENSE: dict[str, Any] = {
    **TINY, "embed_dim": 8, "num_heads": (2, 4, 8, 16), "stripe_widths": (1, 2, 7, 7), "num_classes": 0,
}  # fmt: skip
SHALLOW: dict[str, Any] = dict(embed_dim=16, depths=(1, 1), num_heads=(2, 4))
SIZES = [(64, 64), (4, 40), (72, 104), (20, 12), (3, 90)]  # square, one token high, ..., below one stripe, 30:1


def build(pos_encoding: object = "lepe", **kwargs: object) -> CSWinTransformer:
    model = CSWinTransformer(**{**TINY, "pos_encoding": tiny_spec(pos_encoding), **kwargs})
    return randomize(model)  # type: ignore[return-value]


def image(*size: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, *size)


@pytest.mark.parametrize("run", ["native", "larger", "larger by set_input_size"])
def test_official_classifier(run: str) -> None:
    weights, inputs, outputs, _ = read("cswin_cls")
    larger = dict(img_size=96, stripe_widths=(1, 2, 3, 3))
    model = CSWinTransformer(**{**OFFICIAL, **(larger if run == "larger" else {})}).eval()
    model.load_state_dict(weights)
    if run == "larger by set_input_size":
        model.set_input_size(**larger)
    run = run.split()[0]
    with torch.no_grad():
        final, maps = model.forward_intermediates(inputs[run], output_fmt="NHWC")
        close(model.forward_head(final, pre_logits=True), outputs[f"{run}.pooled"])
        close(model(inputs[run]), outputs[f"{run}.logits"])
        for index, stage in enumerate(maps, start=1) if run == "native" else ():
            close(stage.flatten(1, 2), outputs[f"native.stage{index}"])


@pytest.mark.parametrize("run", ["native", "nonsquare"])
def test_official_dense_backbone(run: str) -> None:
    weights, inputs, outputs, _ = read("cswin_seg_features")
    model = CSWinTransformer(**DENSE, feature_norms=True).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        maps = model.forward_intermediates(inputs[run], intermediates_only=True)
    for index, ours in enumerate(maps, start=1):
        close(ours, outputs[f"{run}.feat{index}"])


def test_growing_stripes_are_those_of_the_larger_official_model() -> None:
    """Trained at 64 with 1-2-2-2: half of the map in the third stage, so 3 at 96; a quarter in the second, so 2."""
    weights, inputs, outputs, _ = read("cswin_cls")
    model = CSWinTransformer(**OFFICIAL, stripe_policy="grow").eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        close(model(inputs["larger"]), outputs["larger.logits"])
        model.set_stripe_policy("keep")
        assert (model(inputs["larger"]) - outputs["larger.logits"]).abs().max() > 1e-3
    full = CSWinTransformer(img_size=224, depths=(1, 1, 1, 1), stripe_policy="grow")
    shapes = [s.windows((384 // r, 384 // r)) for s, r in zip(full.stages, (4, 8, 16, 32))]
    assert [ways["vertical"].window[1] for ways in shapes[:3]] == [1, 2, 12]
    assert shapes[3]["full"].window == (12, 12)


def test_stripes() -> None:
    """First half of the heads: columns; second half: rows; widths from the policy, lengths from the map."""
    model = build(stripe_widths=(1, 2, 3, 2))
    ways = [{kind: w.window for kind, w in stage.windows((10, 6)).items()} for stage in model.stages]
    assert [list(each) for each in ways] == [["vertical", "horizontal"]] * 3 + [["full"]]
    assert ways[2] == {"vertical": (10, 3), "horizontal": (3, 6)}
    assert ways[3] == {"full": (10, 6)}
    model.set_stripe_policy("grow")
    grown = {kind: w.window for kind, w in model.stages[2].windows((10, 6)).items()}
    assert grown == {"vertical": (10, 5), "horizontal": (8, 6)}  # 3 of 4 tokens at the trained size, rounded
    assert model.stages[2].windows((1, 1))["vertical"].window == (1, 1)


def test_published_stripes() -> None:
    def widths(**kwargs: Any) -> list[int | None]:
        return [stage.stripe_width for stage in CSWinTransformer(depths=(1, 1, 1, 1), **kwargs).stages]

    assert widths() == [1, 2, 7, None]
    assert widths(img_size=384) == [1, 2, 12, None]
    assert widths(img_size=512, feature_norms=True) == [1, 2, 7, None]
    assert widths(img_size=64, stripe_widths=(1, 8, 2, 2)) == [1, None, 2, None]
    assert widths(img_size=64, stripe_widths=(1, 8, 2, 2), feature_norms=True) == [1, 8, 2, None]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_encoding_at_every_size(name: str) -> None:
    model = build(name).train()
    unused = {"prefix_table", "digit_table", "slot_table"}  # of prefix tokens, which there are none of, or wider maps
    for size in SIZES:
        out = model(image(*size))
        assert out.shape == (2, 5)
        out.square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is None:
            assert key.rsplit(".", 1)[-1] in unused, key
        else:
            assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", ELSEWHERE)
def test_padding_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further stripes of padding beyond those that a map of 9 x 13 tokens needs."""
    model, x = build(name, stripe_widths=(4, 2, 3, 2)), image(36, 52)
    with torch.no_grad():
        wanted = model.forward_intermediates(x, intermediates_only=True)
        cut = type(model.stages[0]).windows

        def spared(stage: Any, size: tuple[int, int]) -> dict[str, Windows]:
            spare = {"vertical": (0, 2), "horizontal": (1, 0)}
            return {
                kind: Windows(size, its.window, spare=spare[kind]) if kind in spare else its
                for kind, its in cut(stage, size).items()
            }

        monkeypatch.setattr(type(model.stages[0]), "windows", spared)
        for stage in model.stages:
            stage.cache = type(stage.cache)()
        for ours, theirs in zip(model.forward_intermediates(x, intermediates_only=True), wanted):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("padding", "before"), [("mask", 0), ("values", 2)])
def test_where_padding_stands(padding: str, before: int) -> None:
    """Stripes of 7 on a map of 10: 4 tokens of padding, in the official code half of them ahead."""
    ways = build(padding=padding, stripe_widths=(7, 7, 7, 7)).stages[0].windows((10, 10))
    assert (ways["vertical"].before, ways["horizontal"].before) == ((0, before), (before, 0))


def test_what_padding_holds() -> None:
    """Masked, stripes wider than the map attend as one window; unmasked, zero keys take their share."""
    weights = build("none").state_dict()
    outputs = []
    for padding, widths in (("mask", (64, 64, 64, 64)), ("mask", (16, 8, 4, 2)), ("values", (64, 64, 64, 64))):
        # Exactly as wide as the map, but not of the trained one, which would make the stages full.
        model = build("none", padding=padding, stripe_widths=widths, img_size=128)
        model.load_state_dict(weights)
        assert model.padding == padding
        assert {block.attn.padding for stage in model.stages for block in stage.blocks} == {padding}
        with torch.no_grad():
            outputs.append(model(torch.ones(1, 3, 64, 64) * torch.linspace(-1, 1, 64)))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    assert (outputs[0] - outputs[2]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("lepe", 1), pytest.param("rpb", 3, marks=pytest.mark.long)])
def test_compile(name: str, width: int) -> None:
    """No graph break, forward and backward."""
    torch._dynamo.reset()
    model = build(name, **SHALLOW, stripe_widths=(width, 2)).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, results = image(40, 56), []
    for run in (model, compiled):
        model.zero_grad()
        out = run(x)
        out.square().sum().backward()
        results.append((out, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(results[1][1], results[0][1]):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "policy"), [(1, "keep"), pytest.param(8, "grow", marks=pytest.mark.long)])
def test_export(width: int, policy: str) -> None:
    """One exported graph serves every number of images, height and width."""
    model = build(**SHALLOW, stripe_widths=(width, 2), stripe_policy=policy)
    height, width = (8 * Dim(name, min=1, max=32) for name in ("height", "width"))
    shapes = ({0: Dim("batch", min=1, max=64), 2: height, 3: width},)
    program = torch.export.export(model, (image(48, 72),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for batch, size in ((2, (48, 72)), (1, (64, 64)), (3, (120, 40))):
            x = torch.randn(batch, 3, *size)
            torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)


def test_checkpointing_autocast_copies() -> None:
    model, x, grads = build().train(), image(40, 56), []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*grads):
        torch.testing.assert_close(recomputed, plain)
    model.eval()
    with torch.no_grad():
        wide = model.forward_features(x)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin.forward_features(x), wide)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = model.forward_features(x)
    assert (narrow - wide).norm() / wide.norm() < 0.03


@pytest.mark.parametrize("name", ["lepe", "rpb", "ape", "rope_mixed"])
def test_set_input_size(name: str) -> None:
    model, x = build(name), image(88, 112)
    with torch.no_grad():
        before = model(x)
        model.set_input_size(img_size=(88, 112))
        torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"stripe_widths=\(1, 2\) must be 4 positive numbers"):
        model.set_input_size(img_size=64, stripe_widths=(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stripe_widths": (1, 2)}, r"stripe_widths=\(1, 2\) must be 4 positive numbers, as depths=\(1, 1, 2, 1\)"),
        ({"stripe_widths": (1, 0, 2, 2)}, r"stripe_widths=\(1, 0, 2, 2\) must be 4 positive"),
        ({"embed_dim": (8, 16, 32)}, r"embed_dim=\(8, 16, 32\) must be 4 positive"),
        ({"num_heads": (1, 2, 4, 4)}, "num_heads=1 of stage 0 must be even and divide its width, 16"),
        ({"num_heads": (2, 2, 4, 5)}, "num_heads=5 of stage 3 must be even and divide its width, 128"),
        ({"stripe_policy": "shrink"}, "stripe_policy='shrink' is unknown; allowed: keep, grow"),
        ({"padding": "tokens"}, "padding='tokens' is unknown; allowed: mask, values"),
        ({"pos_encoding": "nope"}, "pos_encoding 'nope' is unknown|nope"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CSWinTransformer(**{**TINY, **options})


def test_every_encoding_starts_from_the_same_body() -> None:
    states = []
    for name in ELSEWHERE:
        torch.manual_seed(0)
        model = CSWinTransformer(**{**TINY, "pos_encoding": name})
        states.append({k: v for k, v in model.state_dict().items() if ".pos_encoding." not in k})
    for state in states[1:]:
        assert all(torch.equal(state[key], value) for key, value in states[0].items())


def test_conventions_of_optimisers() -> None:
    model = build("rpb+ape")
    names = dict(model.named_parameters())
    assert model.no_weight_decay() <= set(names)
    assert {key.rsplit(".", 1)[-1] for key in model.no_weight_decay()} == {"table"}
    groups = param_groups_layer_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert sum(len(group["params"]) for group in groups) == len(names)


@pytest.mark.parametrize("change", [dict(), dict(img_size=448, depths=(1, 1, 1, 1), batch=2)])
def test_the_plain_version_gives_the_same(change: dict[str, Any]) -> None:
    """What the benchmark compares with is the same network."""
    from visionpe.benchmarks.cswin_plain import Plain

    options = dict(embed_dim=16, depths=(1, 1, 2, 2), num_heads=(2, 2, 4, 4), num_classes=7)
    batch = change.pop("batch", 1)
    model = randomize(CSWinTransformer(**{**options, "stripe_widths": (1, 2, 7, 7), **change}))
    x = image(*[change.get("img_size", 224)] * 2, batch=batch)
    with torch.no_grad():
        torch.testing.assert_close(Plain(model)(x), model(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="pos_encoding='rpb' is not written out here; allowed: lepe"):
        Plain(build("rpb"))


def test_registered() -> None:
    names: list[str] = timm.list_models("*cswin*", module="cswin_models")
    short: Callable[[str], str] = lambda name: {"rope_mixed": "rope"}.get(name, name)  # noqa: E731
    for size in ("t", "s", "b", "l"):
        assert {f"cswin_{size}", *(f"{short(name)}_cswin_{size}" for name in ELSEWHERE)} <= set(names)
    assert {name for name in _ENCODINGS if short(name) + "_cswin_t" not in names} <= set(_ENCODINGS) - set(ELSEWHERE)
