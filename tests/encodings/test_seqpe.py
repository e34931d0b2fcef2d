"""SeqPE: a small transformer reads the digits of each coordinate."""

from __future__ import annotations

import pytest
import timm
import torch
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, close, make, read, through

from visionpe import Grid
from visionpe.encodings.absolute.digit_transformer import decimal_digits

SMALL = {"name": "seqpe", "encoder_dim": 8, "encoder_heads": 2, "encoder_layers": 2, "max_digits": 2}
NAMES = {
    "layernorm_1": "norm1", "layernorm_2": "norm2", "attn.c_attn": "qkv", "attn.c_proj": "proj",
    "mlp.c_fc": "fc1", "mlp.c_proj": "fc2",
}  # fmt: skip


def options(kwargs: dict) -> dict:
    return {
        "name": "seqpe",
        "encoder_dim": kwargs["pe_embed_dim"],
        "encoder_heads": kwargs["num_attention_heads"],
        "encoder_layers": kwargs["layer_num"],
        "max_digits": kwargs["max_digits"],
        "causal": kwargs["attn_direction"] == "causal",
        "final_norm": kwargs["use_last_layernorm"],
        "mask_padding": kwargs["mask_padding"],
        "temperature": kwargs["seqpe_temperature"],
    }


def converted(weights: dict) -> dict:
    """Official keys to ours; there, weights are stored (in, out)."""
    plain = {
        "token_of_seqpe_embed.weight": "digit_table",
        "pos_of_seqpe_embed.weight": "slot_table",
        "dim_token_embed": "axis_table",
        "cls_token_embed": "class_table",
    }
    state = {}
    for key, value in weights.items():
        if key in plain:
            state[plain[key]] = value.flatten() if key == "cls_token_embed" else value.flatten(0, -2)
        elif key.startswith("transformers."):
            _, layer, rest = key.split(".", 2)
            name, kind = rest.rsplit(".", 1)
            turned = value.T if kind == "weight" and "layernorm" not in name else value
            state[f"blocks.{layer}.{NAMES[name]}.{kind}"] = turned
        else:
            state[key.replace("layernorm", "norm").replace("out_proj", "out")] = value
    return state


@pytest.mark.parametrize("run", ["origin", "offset"])
def test_official_encoder(run: str) -> None:
    weights, inputs, outputs, metadata = read("seqpe_encoder")
    kwargs = metadata["kwargs"]
    encoding = make(options(kwargs), dim=kwargs["out_proj_dim"])["seqpe"]
    encoding.load_state_dict(converted(weights))
    positions = inputs[f"{run}.positions"].long()
    assert torch.equal(decimal_digits(positions, 3).flatten(1), inputs[f"{run}.digits"].long())
    close(encoding.encode(positions, torch.float32), outputs[f"{run}.pe"])
    added = encoding.add(torch.zeros(1, len(positions), 24), Grid((200, 200), coords=positions.float()))
    close(added[0], outputs[f"{run}.pe"])
    if run == "origin":
        close(encoding.add(torch.zeros(1, 42, 24), Grid((6, 7)))[0], outputs[f"{run}.pe"])


@pytest.mark.parametrize("run", ["native", "larger"])
def test_official_model(run: str) -> None:
    weights, inputs, outputs, metadata = read("seqpe_vit_attn")
    kwargs, vit = metadata["kwargs"]["seqpe"], metadata["kwargs"]["vit"]
    keywords = {k: vit[k] for k in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes")}
    spec = {**options(kwargs), "site": "logits", "pe_dim": vit["pe_dim"]}
    model = timm.create_model("none_vit_ti", pos_encoding=spec, init_values=0, **keywords).eval()
    state = converted({k.removeprefix("pe."): v for k, v in weights.items() if k.startswith("pe.")})
    state = {f"pos_encoding.seqpe.{k}": v for k, v in state.items()}
    for key, value in weights.items():
        key = key.removeprefix("vit.")
        if ".pe_qk." in key:
            _, layer, _, _, kind = key.split(".")
            state[f"pos_encoding.seqpe.qk.{layer}.{kind}"] = value
        elif key == "cls_token_pos_embed":
            state["pos_encoding.seqpe.prefix_table"] = value[0]
        elif not key.startswith("pe."):
            state[key] = value
    model.load_state_dict(state)
    with torch.no_grad():
        close(model.forward_features(inputs[run]), outputs[f"{run}.tokens"])
        close(model(inputs[run]), outputs[f"{run}.logits"])


def test_digits() -> None:
    assert decimal_digits(torch.tensor([0, 7, 40, 123]), 3).tolist() == [[0, 0, 0], [0, 0, 7], [0, 4, 0], [1, 2, 3]]


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_hidden(causal: bool) -> None:
    """Hidden zeros ahead of a number change nothing; the number 0 itself is seen."""
    encoding = make({**SMALL, "mask_padding": True, "causal": causal})["seqpe"]
    positions = torch.tensor([[3, 4], [0, 12], [30, 4]])
    before = encoding.encode(positions, torch.float32)
    with torch.no_grad():
        encoding.slot_table[0] += torch.randn(8)  # the tens of the row
    after = encoding.encode(positions, torch.float32)
    assert after.isfinite().all()
    torch.testing.assert_close(after[:2], before[:2])
    assert (after[2] - before[2]).abs().max() > 1e-3
    with torch.no_grad():
        encoding.slot_table[1] += torch.randn(8)  # the units of the row
    assert (encoding.encode(positions, torch.float32) - after).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("slots", [0, 1, 2])
def test_logits(prefix: int, slots: int) -> None:
    encoding = make({**SMALL, "site": "logits", "pe_dim": 6, "prefix_slots": slots})
    seqpe, grid = encoding["seqpe"], Grid((3, 4), prefix)
    q = torch.randn(2, 2, grid.num_tokens, 8)
    (bias,) = encoding.bias(q, q, grid, layer=1)
    vectors = seqpe.encode(Grid((3, 4)).positions(dtype=torch.long), torch.float32)
    used = min(slots, prefix)
    if used:
        vectors = torch.cat((seqpe.prefix_table[:used], vectors))
    left, right = seqpe.qk[1](vectors).chunk(2, dim=-1)
    wanted = torch.zeros(grid.num_tokens, grid.num_tokens)
    at = torch.tensor([*range(used), *range(prefix, grid.num_tokens)])
    wanted[at[:, None], at] = left @ right.T * 8**-0.5
    torch.testing.assert_close(bias.matrix(q.dtype)[0, 0], wanted, atol=1e-5, rtol=1e-5)
    x = torch.randn(2, 12, 16)
    assert torch.equal(encoding.add(x, grid), x)


@pytest.mark.parametrize("site", ["qk_mul", "qk_add", "logits"])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_parts_of_queries_and_keys(site: str, per_head: bool, prefix: int) -> None:
    """Token by token: the parts of its vector, of the class token's own, and none for further prefix tokens."""
    encoding = make({**SMALL, "site": site, "per_head": per_head})
    seqpe, grid = encoding["seqpe"], Grid((3, 4), prefix)
    q, k = torch.randn(2, 2, 2, grid.num_tokens, 8)
    turned = encoding.rotate(q, k, grid, layer=1)
    vectors = seqpe.encode(grid.positions(dtype=torch.long), torch.float32)
    for token in range(grid.num_tokens):
        slot = seqpe.prefix_table[0] if token == 0 and prefix else vectors[token - prefix]
        parts = seqpe.qk[1](slot).unflatten(0, (2, -1, 8))  # (2, 1 or heads, head_dim)
        for head in range(2):
            for x, got, part in zip((q, k), turned, parts[:, head if per_head else 0]):
                before = x[:, head, token]
                wanted = {"qk_mul": before * part, "qk_add": before + part, "logits": before}[site]
                wanted = before if 0 < token < prefix else wanted
                torch.testing.assert_close(got[:, head, token], wanted, atol=1e-5, rtol=1e-5)
    if site == "logits":
        (bias,) = encoding.bias(q, k, grid, layer=1)
        query, key = seqpe.qk[1](vectors).unflatten(1, (2, -1, 8)).permute(1, 2, 0, 3)
        wanted = query @ key.mT * 8**-0.5
        own = bias.matrix(q.dtype)[0, :, prefix:, prefix:]
        torch.testing.assert_close(own, wanted.expand_as(own), atol=1e-5, rtol=1e-5)
    else:
        assert encoding.bias(q, k, grid, layer=1) == []
    assert encoding.at({"logits": "bias"}.get(site, "rotate")) == [seqpe]


def test_coordinates_of_each_sample() -> None:
    for site in ("add", "logits", "qk_mul"):
        encoding = make({**SMALL, "site": site})
        coords = torch.randint(0, 9, (2, 5, 2)).float()
        q, x = torch.randn(2, 2, 6, 8), torch.randn(2, 6, 16)
        together = through(encoding, q, q, q, x, Grid((9, 9), 1, coords=coords), 1)
        for i in range(2):
            one = (t[i : i + 1] for t in (q, q, q, x))
            for a, b in zip(together, through(encoding, *one, Grid((9, 9), 1, coords=coords[i]), 1)):
                torch.testing.assert_close(a[i : i + 1], b, atol=1e-5, rtol=1e-5)


def test_three_axes() -> None:
    encoding = make(SMALL, grid_size=(2, 3, 4))["seqpe"]
    added = encoding.add(torch.zeros(1, 24, 16), Grid((2, 3, 4)))
    torch.testing.assert_close(added[0, 23], encoding.encode(torch.tensor([[1, 2, 3]]), torch.float32)[0])
    with pytest.raises(ValueError, match="seqpe was built for 3 axes, the tokens stand on 2"):
        encoding.add(torch.zeros(1, 4, 16), Grid((2, 2)))


def test_precision_under_autocast() -> None:
    for site in ("add", "logits"):
        encoding, grid = make({**SMALL, "site": site}), Grid((3, 5), 1)
        q, x = torch.randn(1, 2, 16, 8), torch.randn(1, 15, 16)
        results = []
        for enabled in (True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                results.append(
                    (encoding.add(x, grid), *(t for b in encoding.bias(q, q, grid) for t in (b.left, b.right)))
                )
        for a, b in zip(*results):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "attn"}, "site='attn' is unknown; allowed: add, logits, qk_mul, qk_add"),
        ({"per_head": True}, "per_head=True with site='add'"),
        ({"encoder_heads": 3}, "encoder_dim=8 is no multiple of encoder_heads=3"),
        ({"max_digits": 0}, "max_digits=0 must be positive"),
        ({"pe_dim": 5}, "pe_dim=5 with site='add'; allowed: 16"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"prefix_slots": -1}, "prefix_slots=-1 must be 0 or more"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({**SMALL, **options})


def test_too_few_digits() -> None:
    with pytest.raises(ValueError, match="max_digits=1 is too few for 11 tokens a side"):
        make({**SMALL, "max_digits": 1}).add(torch.zeros(1, 22, 16), Grid((2, 11)))


@pytest.mark.parametrize(
    "spec",
    [
        SMALL,
        {**SMALL, "site": "logits", "final_norm": False},
        {**SMALL, "site": "qk_mul", "per_head": True},
        {**SMALL, "mask_padding": True, "causal": False},
    ],
)
def test_gradients(spec: dict) -> None:
    check_gradients(spec)


@pytest.mark.parametrize(("site", "per_head"), [("add", False), ("logits", False), ("qk_mul", True)])
def test_in_a_model(site: str, per_head: bool) -> None:
    spec = {**SMALL, "site": site, "per_head": per_head}
    check_sizes(spec)
    check_export(spec)


@pytest.mark.long
@pytest.mark.parametrize("site", ["add", "logits"])
def test_compiled(site: str) -> None:
    check_compile({**SMALL, "site": site})
