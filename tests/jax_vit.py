"""The original JAX layout of ViT, written from timm's models."""

from __future__ import annotations

import torch


def jax_arrays(reference: torch.nn.Module, *, heads: int = 2) -> dict:
    """timm's ViT in the layout of google-research/vision_transformer."""
    state = {k: v.detach().numpy() for k, v in reference.state_dict().items()}
    dim = state["patch_embed.proj.bias"].shape[0]
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    if "cls_token" in state:
        arrays["cls"] = state["cls_token"]
    for i in range(len(reference.blocks)):
        block, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = theirs + "MultiHeadDotProductAttention_1/"
        weights, biases = (
            state[block + f"attn.qkv.{kind}"].reshape(3, heads, dim // heads, -1) for kind in ("weight", "bias")
        )
        for part, weight, bias in zip(("query", "key", "value"), weights, biases):
            arrays[attention + part + "/kernel"] = weight.transpose(2, 0, 1)
            arrays[attention + part + "/bias"] = bias[..., 0]
        arrays[attention + "out/kernel"] = state[block + "attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        arrays[attention + "out/bias"] = state[block + "attn.proj.bias"]
        for ours, norm in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[theirs + norm + "/scale"] = state[block + ours + ".weight"]
            arrays[theirs + norm + "/bias"] = state[block + ours + ".bias"]
        for n in (0, 1):
            arrays[f"{theirs}MlpBlock_3/Dense_{n}/kernel"] = state[f"{block}mlp.fc{n + 1}.weight"].T
            arrays[f"{theirs}MlpBlock_3/Dense_{n}/bias"] = state[f"{block}mlp.fc{n + 1}.bias"]
    return arrays
