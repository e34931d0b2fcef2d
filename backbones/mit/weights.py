"""Published MiT checkpoints: from the key layouts of the authors, mmseg and Hugging Face to ours."""

from __future__ import annotations

import re
from typing import Any

import torch

from visionpe.backbones.shared.loading import fit_pyramid, renamed
from visionpe.utils.weight_files import StateDict

# The authors count from 1, inside names.
COUNTED = re.compile(r"(backbone\.)?(patch_embed|block|norm)(\d+)\.")
AUTHORS = (
    (r"patch_embeds\.0\.", "patch_embed."),
    (r"patch_embeds\.(\d+)\.", r"stages.\1.downsample."),
    (r"blocks\.(\d+)\.(\d+)\.mlp\.dwconv\.", r"stages.\1.blocks.\2.mlp."),
    (r"blocks\.(\d+)\.", r"stages.\1.blocks."),
    (r"norms\.(\d+)\.", r"stages.\1.norm."),
    (r"head\.(?=weight$|bias$)", "head.fc."),
)
MMSEG = (
    (r"layers\.0\.0\.projection\.", "patch_embed.proj."),
    (r"layers\.0\.0\.", "patch_embed."),
    (r"layers\.(\d+)\.0\.projection\.", r"stages.\1.downsample.proj."),
    (r"layers\.(\d+)\.0\.", r"stages.\1.downsample."),
    (r"layers\.(\d+)\.1\.(\d+)\.attn\.attn\.out_proj\.", r"stages.\1.blocks.\2.attn.proj."),
    (r"layers\.(\d+)\.1\.(\d+)\.attn\.attn\.", r"stages.\1.blocks.\2.attn."),
    (r"layers\.(\d+)\.1\.(\d+)\.ffn\.layers\.0\.", r"stages.\1.blocks.\2.mlp.fc1."),
    (r"layers\.(\d+)\.1\.(\d+)\.ffn\.layers\.1\.", r"stages.\1.blocks.\2.mlp.dwconv."),
    (r"layers\.(\d+)\.1\.(\d+)\.ffn\.layers\.4\.", r"stages.\1.blocks.\2.mlp.fc2."),
    (r"layers\.(\d+)\.1\.", r"stages.\1.blocks."),
    (r"layers\.(\d+)\.2\.", r"stages.\1.norm."),
)
HOLDER, HUGGING_FACE_MARK = "segformer.", "encoder.patch_embeddings.0.proj.weight"
IN_BLOCK = r"encoder\.block\.(\d+)\.(\d+)\."
HUGGING_FACE = (
    (r"encoder\.patch_embeddings\.0\.layer_norm\.", "patch_embed.norm."),
    (r"encoder\.patch_embeddings\.0\.", "patch_embed."),
    (r"encoder\.patch_embeddings\.(\d+)\.layer_norm\.", r"stages.\1.downsample.norm."),
    (r"encoder\.patch_embeddings\.(\d+)\.", r"stages.\1.downsample."),
    (rf"{IN_BLOCK}layer_norm_(\d)\.", r"stages.\1.blocks.\2.norm\3."),
    (rf"{IN_BLOCK}attention\.self\.query\.", r"stages.\1.blocks.\2.attn.q."),
    (rf"{IN_BLOCK}attention\.self\.layer_norm\.", r"stages.\1.blocks.\2.attn.norm."),
    (rf"{IN_BLOCK}attention\.self\.", r"stages.\1.blocks.\2.attn."),
    (rf"{IN_BLOCK}attention\.output\.dense\.", r"stages.\1.blocks.\2.attn.proj."),
    (rf"{IN_BLOCK}mlp\.dense(\d)\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (rf"{IN_BLOCK}mlp\.dwconv\.", r"stages.\1.blocks.\2.mlp."),
    (r"encoder\.layer_norm\.(\d+)\.", r"stages.\1.norm."),
    (r"classifier\.", "head.fc."),
)


def _joined(state: StateDict) -> StateDict:
    """Keys and values in one projection, queries in another; single tokens by a linear layer."""
    out: StateDict = {}
    for key, value in state.items():
        where, _, last = key.rpartition(".attn.")
        if last in ("in_proj_weight", "in_proj_bias"):
            queries, rest = value.tensor_split([len(value) // 3])
            name = last.removeprefix("in_proj_")
            out |= {f"{where}.attn.q.{name}": queries, f"{where}.attn.kv.{name}": rest}
        elif last in ("key.weight", "key.bias"):
            name = last.removeprefix("key.")
            values = state.get(f"{where}.attn.value.{name}")
            out |= {key: value} if values is None else {f"{where}.attn.kv.{name}": torch.cat((value, values))}
        elif last in ("value.weight", "value.bias") and f"{where}.attn.key.{last.removeprefix('value.')}" in state:
            continue
        else:
            single = key.endswith((".mlp.fc1.weight", ".mlp.fc2.weight")) and value.ndim == 4
            out[key] = value.flatten(1) if single else value
    return out


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn the layouts of the authors, mmseg and Hugging Face into ours; ours stays as it is.

    A file of mmseg's makes norms of patches and cells add what they do in its code, unless the user chose it; one of
    the authors undoes that. Hugging Face's files hold the authors' weights, so they are computed as in their code.
    """
    by_mmseg = any(key.removeprefix("backbone.") == "layers.0.0.projection.weight" for key in state)
    counted = {_counted(key): value for key, value in state.items()}
    out = renamed(counted, AUTHORS, mark="patch_embeds.0.proj.weight")
    out = renamed(out, MMSEG, mark="layers.0.0.projection.weight")
    if any(key.removeprefix(HOLDER) == HUGGING_FACE_MARK for key in state):
        out = {k.removeprefix(HOLDER): value for k, value in out.items() if not k.startswith("decode_head.")}
        out = renamed(out, HUGGING_FACE, mark=HUGGING_FACE_MARK)
    if out.keys() != state.keys() and not model.embed_norm_eps_is_chosen:
        model.set_embed_norm_eps(1e-6 if by_mmseg else 1e-5)
    return fit_pyramid(_joined(out), model)


def _counted(key: str) -> str:
    """A key of the authors with its stage counted from 0, set apart."""
    match = COUNTED.match(key)
    return key if match is None else f"{match[1] or ''}{match[2]}s.{int(match[3]) - 1}.{key[match.end() :]}"
