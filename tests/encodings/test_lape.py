"""LaPE: a norm of its own for the position embedding of every layer."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, close, make, read

from visionpe import Grid, create_encoding
from visionpe.specification import parse_spec


def official() -> torch.nn.Module:
    weights, _, _, metadata = read("lape")
    kwargs = metadata["kwargs"]
    keywords = {k: kwargs[k] for k in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes")}
    model = timm.create_model("lape_vit_ti", init_values=0, **keywords).eval()
    state = {}
    for key, value in weights.items():
        if key == "pos_embed":
            state["pos_encoding.lape.prefix_table"] = value[0, :1]
            state["pos_encoding.lape.over.table"] = value[0, 1:].unflatten(0, (6, 6))
        elif ".pe_norm." in key:
            _, layer, _, kind = key.split(".")
            state[f"pos_encoding.lape.norms.{layer}.{kind}"] = value
        else:
            state[key] = value
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("run", ["native", "lowcontrast"])
def test_official_model(run: str) -> None:
    _, inputs, outputs, _ = read("lape")
    model = official()
    with torch.no_grad():
        close(model.forward_features(inputs[run]), outputs[f"{run}.tokens"])
        close(model(inputs[run]), outputs[f"{run}.logits"])
        for layer in range(3):
            x = torch.zeros(1, 37, 32)
            close(model.pos_encoding.inject(x, Grid((6, 6), 1), layer=layer), outputs[f"{run}.pe{layer}"])


@pytest.mark.parametrize("inner", ["sincos", "fourier", "ape"])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_over_any_absolute_encoding(inner: str, prefix: int) -> None:
    encoding = make(f"lape({inner})")
    lape, grid = encoding["lape"], Grid((3, 7), prefix)
    x = torch.randn(2, grid.num_tokens, 16)
    first = torch.zeros(1, prefix, 16)
    if inner != "sincos" and prefix:
        first = torch.cat((lape.prefix_table[None], first[:, 1:]), dim=1)
    p = torch.cat((first, lape.over.add(torch.zeros(1, 21, 16), Grid((3, 7)))), dim=1)
    for layer in range(2):
        p = F.layer_norm(p, (16,), *lape.norms[layer].parameters(), eps=1e-6)
        torch.testing.assert_close(encoding.inject(x, grid, layer=layer), x + p)
    assert torch.equal(encoding.add(x[:, prefix:], grid), x[:, prefix:])  # the tokens stay unmixed
    assert encoding.at("add") == [lape]
    assert type(lape).sites() == ("add",)


def test_only_attention_sees_it() -> None:
    """With attention cut off, images pass as if there were no positions."""
    models = [
        timm.create_model(n, img_size=24, patch_size=4, depth=2, num_classes=0) for n in ("lape_vit_ti", "none_vit_ti")
    ]
    models[1].load_state_dict({k: v for k, v in models[0].state_dict().items() if "pos_encoding" not in k})
    x = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        assert not torch.allclose(models[0](x), models[1](x), atol=1e-6)
        for model in models:
            for block in model.blocks:
                block.attn.proj.weight.zero_()
        assert torch.equal(models[0](x), models[1](x))


def test_coordinates_of_each_sample() -> None:
    encoding = make("lape")
    coords = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[3.0, 0.0], [1.0, 1.0]]])
    whole = encoding.inject(torch.zeros(1, 17, 16), Grid((4, 4), 1), layer=1)[0]
    some = encoding.inject(torch.zeros(2, 3, 16), Grid((4, 4), 1, coords=coords), layer=1)
    torch.testing.assert_close(some, whole[torch.tensor([[0, 2, 12], [0, 13, 6]])])


def test_policy_and_size_are_those_of_the_encoding_underneath() -> None:
    encoding = create_encoding({"name": "lape", "over": {"name": "ape", "policy": "bilinear"}}, dim=8, num_heads=2)
    assert encoding.over.policy == "bilinear"
    encoding.set_input_grid((3, 5))
    assert encoding.over.table.shape == (3, 5, 8)
    assert "over.table" in encoding.no_weight_decay()


def test_specifications() -> None:
    assert parse_spec("rope_mixed + lape(ape)") == [("rope_mixed", {}), ("lape", {"over": "ape"})]
    assert parse_spec("a(b+c(d))+e") == [("a", {"over": "b+c(d)"}), ("e", {})]
    assert list(make("rope_axial+lape(sincos)")) == ["rope_axial", "lape"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lape(rope_mixed)", "over='rope_mixed' is not one absolute encoding"),
        ("lape(ape+sincos)", r"over='ape\+sincos' is not one absolute encoding"),
        ("lape(lape(ape))", r"over='lape\(ape\)' is not one absolute"),
        ("lape(appe)", "encoding 'appe' is unknown; did you mean"),
        ("ape(sincos)", r"'ape' goes over no other encoding; allowed: every_block\(\.\.\.\), lape\(\.\.\.\)"),
        ("lape(ape", "its parentheses do not match"),
        ("lape)ape(", "its parentheses do not match"),
        ("lape(ape)x", "its parentheses do not match"),
        ({"name": "lape", "prefix_slots": -1}, "prefix_slots=-1 must be 0 or more"),
    ],
)
def test_bad_specifications(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(spec)


@pytest.mark.parametrize("spec", ["lape(ape)", "lape(sincos)"])
def test_gradients(spec: str) -> None:
    check_gradients(spec)


@pytest.mark.parametrize("spec", ["lape(ape)", "lape(sincos)"])
def test_in_a_model(spec: str) -> None:
    check_sizes(spec)
    check_export(spec)


@pytest.mark.long
@pytest.mark.parametrize("spec", ["lape(ape)", "lape(sincos)"])
def test_compiled(spec: str) -> None:
    check_compile(spec)


@pytest.mark.parametrize("spec", ["lape", {"name": "seqpe", "site": "logits", "encoder_dim": 8, "encoder_heads": 2}])
def test_what_layers_leave_each_other(spec: object) -> None:
    """Without gradients a layer goes on from the one before it in the same pass, and from nothing else."""
    encoding = make(spec, depth=3)
    part, grid = encoding.parts[0], Grid((3, 5), 1)
    x, q = torch.randn(1, 16, 16), torch.randn(1, 2, 16, 8)

    def run(layer: int, grid: Grid = grid) -> torch.Tensor:
        out = encoding.inject(x, grid, layer=layer)
        return out + sum(b.matrix(q.dtype).sum() for b in encoding.bias(q, q, grid, layer=layer))

    wanted = [run(layer).detach() for layer in range(3)]
    assert part.memo._kept is None
    with torch.no_grad():
        for _ in range(2):
            for layer in range(3):
                torch.testing.assert_close(run(layer), wanted[layer])
        assert part.memo._kept is None  # nothing stays behind the last layer
        for layer in (0, 2, 0, 1, 1):  # out of order
            torch.testing.assert_close(run(layer), wanted[layer])
        other = Grid((5, 3), 1)
        crossed = run(0), run(1, other), run(2), run(1)
        torch.testing.assert_close(torch.stack(crossed[2:]), torch.stack([wanted[2], wanted[1]]))
        assert (crossed[1] - wanted[1]).abs().max() > 1e-3
        run(0)
        for parameter in encoding.parameters():
            parameter.data.mul_(2)
        run(0)
        changed = run(1)
    torch.testing.assert_close(changed, run(1).detach())
    assert copy.deepcopy(part).memo._kept is None
