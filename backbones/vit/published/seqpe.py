"""SeqPE's code: a ViT, and beside it the model that makes position embeddings (``pe_model``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from visionpe.backbones.vit.published.parts import part_of
from visionpe.utils.weight_files import Weights

PE, OWN = "pe_model.", "pos_encoding.seqpe."
PARTS = re.compile(r"(?:blocks\.(\d+)\.attn\.)?pe_qk\.(weight|bias)")
TABLES = {
    "token_of_seqpe_embed.weight": "digit_table",
    "pos_of_seqpe_embed.weight": "slot_table",
    "dim_token_embed": "axis_table",
    "cls_token_embed": "class_table",
}
LAYERS = {
    "layernorm_1": "norm1",
    "layernorm_2": "norm2",
    "attn.c_attn": "qkv",
    "attn.c_proj": "proj",
    "mlp.c_fc": "fc1",
    "mlp.c_proj": "fc2",
}
# Of the class token, in a ViT.
SLOT = "cls_token_pos_embed"
SITES = {"input_add": "add", "attn_scalar": "logits", "attn_mul": "qk_mul", "attn_add": "qk_add"}


def matches(state: Weights) -> bool:
    return f"{PE}cls_token_embed" in state


def convert(state: Weights, model: Any) -> Weights:
    """The encoder under our names, its linear layers turned: they are stored (in, out).

    One layer of query and key parts for all blocks becomes one in each. What is added to the class token joins it.
    """
    seqpe = part_of(model, "seqpe")
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(PE):
            name, turned = _encoder(key.removeprefix(PE), value)
            out[OWN + name] = turned
        elif match := PARTS.fullmatch(key):
            blocks = range(model.depth) if match[1] is None else (match[1],)
            out |= {f"{OWN}qk.{block}.{match[2]}": value for block in blocks}
        elif key == SLOT and seqpe is not None and seqpe.site == "add":
            out["cls_token"] = state["cls_token"] + value
        elif key == SLOT:
            out[f"{OWN}prefix_table"] = value[0]
        else:
            out.setdefault(key, value)
    problems = [] if seqpe is None else list(_problems(state, seqpe))
    return state.derived(out, problems=problems, by_authors=True)


def _encoder(key: str, value: Tensor) -> tuple[str, Tensor]:
    """A tensor of the encoder under our name."""
    if key in TABLES:
        return TABLES[key], value.flatten() if key == "cls_token_embed" else value.flatten(0, -2)
    if match := re.fullmatch(r"transformers\.(\d+)\.(.+)\.(weight|bias)", key):
        linear = match[3] == "weight" and "layernorm" not in match[2]
        return f"blocks.{match[1]}.{LAYERS.get(match[2], match[2])}.{match[3]}", value.T if linear else value
    return key.replace("layernorm.", "norm.").replace("out_proj.", "out."), value


def _problems(state: Weights, seqpe: Any) -> Iterator[str]:
    """Where the options of training, which the file keeps, are not those of the model; shapes do not tell them."""
    known = state.config
    theirs = {
        "site": SITES.get(known.get("PE_APPLY_METHOD", ""), known.get("PE_APPLY_METHOD")),
        "per_head": known.get("USE_PE_MULTI_HEAD") and known.get("PE_APPLY_METHOD") != "input_add",
        "encoder_heads": known.get("NUM_ATTENTION_HEADS"),
        "causal": None if "SEQPE_ATTN_DIRECTION" not in known else known["SEQPE_ATTN_DIRECTION"] == "causal",
        "mask_padding": known.get("SEQPE_MASK_PADDING"),
        "temperature": known.get("SEQPE_TEMPERATURE"),
    }
    for name, wanted in theirs.items():
        if wanted is not None and getattr(seqpe, name) != wanted:
            yield f"{name}={getattr(seqpe, name)!r} of seqpe is not that of the file's training; allowed: {wanted!r}"
