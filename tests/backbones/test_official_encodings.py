"""Files of the authors of single encodings load as they were published, and give what their code gave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from reference_files import close, read
from torch import Tensor, nn

BODY = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes")
CLIP = dict(pre_norm=True, act_layer="quick_gelu", norm_layer=partial(nn.LayerNorm, eps=1e-5))
CROMA = dict(
    in_chans=2, patch_size=8, num_heads=16, num_classes=0, class_token=False, global_pool="", qkv_bias=False,
    norm_layer=partial(nn.LayerNorm, eps=1e-5),
)  # fmt: skip
METHODS = {"product": "product", "cross": "cross"}


def below(weights: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def irpe(kwargs: dict) -> dict:
    config = kwargs["rpe_config"]
    mode = {"ctx": "contextual", "bias": "bias"}[config["mode"]]
    spec = {"name": "irpe", "method": METHODS[config["method"]], "mode": mode, "on": config["rpe_on"]}
    spec |= {"shared": config["shared_head"], "ratio": config["ratio"]}
    return dict(pos_encoding=[spec, "ape"])


def seqpe(kwargs: dict) -> dict:
    options, vit, method = kwargs["seqpe"], kwargs["vit"], kwargs.get("pe_apply_method", "attn_scalar")
    spec = {
        "name": "seqpe",
        "site": {"attn_scalar": "logits", "attn_mul": "qk_mul", "attn_add": "qk_add", "input_add": "add"}[method],
        "per_head": kwargs.get("use_pe_multi_head", False),
        "encoder_dim": options["pe_embed_dim"],
        "encoder_heads": options["num_attention_heads"],
        "encoder_layers": options["layer_num"],
        "max_digits": options["max_digits"],
        "final_norm": options["use_last_layernorm"],
        "causal": options["attn_direction"] == "causal",
        "mask_padding": options["mask_padding"],
        "temperature": options["seqpe_temperature"],
    }
    return dict(pos_encoding=spec, **{key: vit[key] for key in (*BODY, "mlp_ratio") if key in vit})


def yacs(kwargs: dict) -> dict:
    """The options of training that SeqPE's files keep."""
    options = kwargs["seqpe"]
    return {
        "PE_APPLY_METHOD": kwargs["pe_apply_method"],
        "USE_PE_MULTI_HEAD": kwargs["use_pe_multi_head"],
        "NUM_ATTENTION_HEADS": options["num_attention_heads"],
        "SEQPE_ATTN_DIRECTION": options["attn_direction"],
        "SEQPE_MASK_PADDING": options["mask_padding"],
        "SEQPE_TEMPERATURE": options["seqpe_temperature"],
    }


def clip(kwargs: dict, form: str) -> dict:
    ratio = kwargs["intermediate_size"] / kwargs["hidden_size"]
    body = dict(img_size=24, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5, mlp_ratio=ratio)
    spec = {"name": "comrope", "form": form, "block_size": 4}
    return CLIP | body | dict(pos_encoding=[spec] if form == "ap" else [spec, "ape"])


# Reference file -> name of the model, the file as its authors publish it, keywords.
FILES: dict[str, tuple[str, Callable[[dict], dict], Callable[[dict], dict]]] = {
    "lape": ("lape_vit_ti", lambda w: {"model": w, "epoch": 299}, lambda k: {}),
    "irpe_product_ctx_k_shared": ("irpe_vit_ti", lambda w: {"model": w}, irpe),
    "irpe_cross_bias_qk_perhead": ("irpe_vit_ti", lambda w: {"model": w, "model_ema": w}, irpe),
    "seqpe_vit_attn": (
        "seqpe_vit_ti",
        lambda w: {"model": below(w, "vit."), "pe_model": below(w, "pe."), "max_accuracy": 80.1},
        seqpe,
    ),
    "croma_encoder": (
        "alibi_vit_ti",
        lambda w: {"s2_encoder": optical(w), "s1_encoder": below(w, "encoder."), "s1_GAP_FFN": {"0.weight": w_(3)}},
        lambda k: CROMA | dict(img_size=40, embed_dim=32, depth=2),
    ),
    "irpe_product_ctx_qkv": ("irpe_vit_ti", lambda w: {"model": w}, irpe),
    "minivit_deit": (
        "irpe_vit_ti",
        lambda w: {"model": w},
        lambda k: dict(
            pos_encoding="irpe+ape", class_token=False, global_pool="avg", fc_norm=False, talking_heads=True
        ),
    ),
    "ropevit_axial_ape": ("rope_axial_ape_vit_ti", lambda w: {"model": w}, lambda k: {}),
    "comrope_ld": ("comrope_vit_ti", lambda w: w, partial(clip, form="ld")),
    "comrope_ap": ("comrope_vit_ti", lambda w: w, partial(clip, form="ap")),
}
RUNS = [
    *(("lape", run) for run in ("native", "lowcontrast")),
    *(("irpe_product_ctx_k_shared", run) for run in ("native", "lowcontrast", "larger")),
    *(("irpe_cross_bias_qk_perhead", run) for run in ("native", "lowcontrast")),
    *((name, "native") for name in ("irpe_product_ctx_qkv", "minivit_deit")),
    *(("ropevit_axial_ape", run) for run in ("native", "larger", "nonsquare")),
    *(
        (name, run)
        for name in ("seqpe_vit_attn", "croma_encoder", "comrope_ld", "comrope_ap")
        for run in ("native", "larger")
    ),
]


def w_(*shape: int) -> Tensor:
    return torch.randn(shape)


def optical(weights: dict) -> dict:
    """An encoder of twelve channels."""
    return {**below(weights, "encoder."), "linear_input.weight": w_(32, 12 * 64)}


def loaded(name: str, path: Path, **changed: object) -> nn.Module:
    weights, _, _, metadata = read(name)
    model_name, wrapped, keywords = FILES[name]
    options = {key: value for key, value in metadata["kwargs"].items() if key in (*BODY, "mlp_ratio")}
    torch.save(wrapped(weights), path / "official.pth")
    options |= keywords(metadata["kwargs"]) | changed
    return timm.create_model(model_name, checkpoint_path=path / "official.pth", **options).eval()


@pytest.mark.parametrize(("name", "run"), RUNS)
@torch.no_grad()
def test_outputs_are_those_of_the_official_code(name: str, run: str, tmp_path: Path) -> None:
    _, inputs, outputs, _ = read(name)
    model = loaded(name, tmp_path)
    if f"{run}.logits" in outputs:
        close(model(inputs[run]), outputs[f"{run}.logits"])
    if f"{run}.tokens" in outputs:
        close(model.forward_features(inputs[run]), outputs[f"{run}.tokens"])


@pytest.mark.parametrize("site", ["mul_heads", "add_single", "scalar_heads", "input"])
@torch.no_grad()
def test_every_site_of_seqpe(site: str, tmp_path: Path) -> None:
    """For queries and keys by multiplication or addition too, for every head, and by one layer for all blocks."""
    weights, inputs, outputs, metadata = read("seqpe_vit_sites")
    kwargs = metadata["kwargs"][site]
    file = {part: below(weights, f"{site}.{part}.") for part in ("model", "pe_model")} | {"config": yacs(kwargs)}
    if site == "input":  # saved as several processes hold it
        file = {part: {f"module.{k}": v for k, v in file[part].items()} for part in ("model", "pe_model")}
    torch.save(file, tmp_path / "best_model.pth")
    model = timm.create_model("seqpe_vit_ti", checkpoint_path=tmp_path / "best_model.pth", **seqpe(kwargs)).eval()
    for run, x in inputs.items():
        close(model(x), outputs[f"{site}.{run}.logits"])


# What a file's code has and the model has not: changed keywords, and what the refusal says of them.
OTHERWISE: list[tuple[str, dict, str]] = [
    ("croma_encoder", dict(num_heads=8), r"num_heads=8 is not that of the file's code; allowed: 16"),
    ("croma_encoder", dict(norm_layer=None), r"norm_eps=1e-06 is not that of the file's code; allowed: 1e-05"),
    (
        "croma_encoder",
        dict(in_chans=3),
        r"in_chans=3 is of no encoder of the file; allowed: 12 \(s2_encoder\) or 2 \(s1_encoder\)",
    ),
    ("comrope_ap", dict(norm_layer=None), r"norm_eps=1e-06 is not"),
    ("comrope_ap", dict(act_layer=None), r"act_layer=GELU is not that of the file's code; allowed: 'quick_gelu'"),
    (
        "comrope_ap",
        dict(pos_encoding={"name": "comrope", "form": "ap", "prefix_position": 0.25}),
        r"prefix_position=0\.25 of comrope is not that of the file's code; allowed: 0\.5",
    ),
    ("comrope_ap", dict(pos_encoding="comrope"), r"missing from the file: pos_encoding\.comrope\.multiplier"),
    ("comrope_ld", dict(pos_encoding="comrope"), r"'comrope'; not in the model: pos_encoding\.ape\.table"),
    ("comrope_ap", dict(pre_norm=False), r"not in the model: norm_pre\.bias, norm_pre\.weight"),
    (
        "lape",
        dict(pos_encoding="lape(sincos)"),
        r"pos_encoding='lape\(sincos\)' has no table.*; allowed: 'lape\(ape\)'",
    ),
    ("lape", dict(pos_encoding="ape"), r"not in the model: pos_encoding\.lape\.norms\.0\.bias"),
    ("irpe_product_ctx_k_shared", dict(pos_encoding="irpe"), r"'irpe'; not in the model: pos_encoding\.ape\.table"),
    (
        "irpe_product_ctx_k_shared",
        dict(pos_encoding=[{"name": "irpe", "on": "qk"}, "ape"]),
        r"missing from the file: pos_encoding\.irpe\.q_table",
    ),
    (
        "irpe_product_ctx_k_shared",
        dict(pos_encoding=[{"name": "irpe", "ratio": 3.0}, "ape"]),
        r"of another shape: pos_encoding\.irpe\.k_table",
    ),
    ("minivit_deit", dict(talking_heads=False), r"not in the model: blocks\.0\.attn\.mix_logits"),
    ("minivit_deit", dict(class_token=True, global_pool="token"), r"missing from the file: cls_token"),
]


@pytest.mark.parametrize(("name", "changed", "message"), OTHERWISE)
def test_a_model_that_computes_something_else_is_refused(
    name: str, changed: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=rf"does not fit a ViT.*{message}"):
        loaded(name, tmp_path, **changed)


def test_options_of_seqpes_training_are_compared(tmp_path: Path) -> None:
    """No shape tells them, the configuration beside the weights does."""
    weights, _, _, metadata = read("seqpe_vit_sites")
    kwargs = metadata["kwargs"]["mul_heads"]
    file = {part: below(weights, f"mul_heads.{part}.") for part in ("model", "pe_model")} | {"config": yacs(kwargs)}
    torch.save(file, tmp_path / "best_model.pth")
    options = seqpe(kwargs)
    for name, value, allowed in (
        ("site", "logits", "'qk_mul'"),
        ("encoder_heads", 4, "2"),
        ("causal", False, "True"),
        ("mask_padding", True, "False"),
        ("temperature", 2.0, r"1\.0"),
    ):
        changed = options | {"pos_encoding": options["pos_encoding"] | {name: value}}
        with pytest.raises(
            RuntimeError, match=rf"{name}=.* of seqpe is not that of the file's training; allowed: {allowed}"
        ):
            timm.create_model("seqpe_vit_ti", checkpoint_path=tmp_path / "best_model.pth", **changed)


def test_tables_of_several_frames_are_refused(tmp_path: Path) -> None:
    weights, _, _, metadata = read("comrope_ld")
    key = "vision_model.embeddings.position_embedding"
    torch.save(weights | {key: weights[key].expand(2, -1, -1, -1).clone()}, tmp_path / "video.pth")
    with pytest.raises(RuntimeError, match="position_embedding is of 2 frames; allowed: files of images, 1"):
        timm.create_model(
            "comrope_vit_ti", checkpoint_path=tmp_path / "video.pth", **clip(metadata["kwargs"], form="ld")
        )


@torch.no_grad()
def test_cromas_encoders(tmp_path: Path) -> None:
    """By their channels; alone, or with a projection that has a bias."""
    weights, inputs, outputs, _ = read("croma_encoder")
    assert loaded("croma_encoder", tmp_path, in_chans=12)(torch.randn(1, 12, 40, 40)).shape == (1, 25, 32)
    close(loaded("croma_encoder", tmp_path, qkv_bias=True)(inputs["native"]), outputs["native.tokens"])
    model = timm.create_model("alibi_vit_ti", **CROMA, img_size=40, embed_dim=32, depth=2).eval()
    model.load_state_dict(below(weights, "encoder."))
    close(model(inputs["native"]), outputs["native.tokens"])


@torch.no_grad()
def test_fixed_tables_of_lape(tmp_path: Path) -> None:
    """Along a line they have no axis of samples; they are tables like any."""
    weights, inputs, outputs, _ = read("lape")
    source = loaded("lape", tmp_path)
    state = weights | {"pos_embed": weights["pos_embed"][0]}
    torch.save({"model": state}, tmp_path / "line.pth")
    options = dict(img_size=24, patch_size=4, embed_dim=32, depth=3, num_heads=2, num_classes=5)
    for spec in ("lape", "dropped(lape(ape))"):
        model = timm.create_model("lape_vit_ti", checkpoint_path=tmp_path / "line.pth", pos_encoding=spec, **options)
        close(model.eval()(inputs["native"]), outputs["native.logits"])
        x = torch.randn(1, 3, 32, 40)
        close(model(x), source(x))
    assert source.pos_encoding["lape"].over.policy == "bicubic"  # the resize of DeiT's code


def fixed_table(dim: int, height: int, width: int) -> Tensor:
    """What LaPE's code makes for ``2D_sin``: sines and cosines in turns, of the column, then of the row."""
    table = torch.zeros(height, width, dim)
    for channel in range(dim):
        half, place = divmod(channel, dim // 2)
        frequency = 10000 ** (-(place // 2 * 2) / (dim // 2))
        angles = (torch.arange(height)[:, None] if half else torch.arange(width)[None]) * frequency
        table[..., channel] = (angles.cos() if place % 2 else angles.sin()).expand(height, width)
    return table


@torch.no_grad()
def test_computed_tables_of_lape(tmp_path: Path) -> None:
    """A file of ``2D_sin`` loads as a table, and where the model computes the same numbers, without one."""
    weights, inputs, _, metadata = read("lape")
    table = fixed_table(32, 6, 6).flatten(0, 1)
    weights = {**weights, "pos_embed": torch.cat((torch.zeros(1, 32), table))[None]}
    torch.save({"model": weights}, tmp_path / "sin.pth")
    options = {key: value for key, value in metadata["kwargs"].items() if key in (*BODY, "mlp_ratio")}
    options["checkpoint_path"] = tmp_path / "sin.pth"
    as_table = timm.create_model("lape_vit_ti", **options).eval()
    spec = "lape(sincos(interleaved=True), prefix_slots=0)"
    computed = timm.create_model("lape_vit_ti", pos_encoding=spec, **options).eval()
    close(computed(inputs["native"]), as_table(inputs["native"]))
    assert not [key for key in computed.state_dict() if "table" in key]
    with pytest.raises(RuntimeError, match="not of the same numbers"):
        timm.create_model("lape_vit_ti", pos_encoding="lape(sincos)", **options)
