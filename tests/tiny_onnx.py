"""An ONNX file laid out as the published one is, of a tiny network with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ONNX_NAMES = {  # timm's names inside a block -> the file's
    "norm1": "norm1",
    "attn.proj": "attention.output.dense",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
DIM, DEPTH, PATCH, SIDE = 64, 2, 4, 5


def random_state(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts of a tiny timm DINOv2 and of its decoder."""
    import timm

    from visionpe.saliency.decoder import SaliencyDecoder

    backbone = timm.create_model(
        "vit_small_patch14_dinov2", embed_dim=DIM, depth=DEPTH, num_heads=1, patch_size=PATCH, img_size=PATCH * SIDE
    )
    states = backbone.state_dict(), SaliencyDecoder(DIM, (8, 6, 4)).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for state in states:
        for name in [name for name in state if name.endswith("num_batches_tracked")]:
            del state[name]
        for name, value in state.items():
            state[name] = 0.2 * torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                state[name] = state[name].abs() + 0.5
    return states


def file_arrays(backbone: dict[str, Tensor], decoder: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The arrays under the names of the file; linear weights, ``(in, out)`` there, under those of their nodes."""
    out = {
        "backbone.embeddings.cls_token": backbone["cls_token"],
        "backbone.embeddings.patch_embeddings.projection.weight": backbone["patch_embed.proj.weight"],
        "backbone.embeddings.patch_embeddings.projection.bias": backbone["patch_embed.proj.bias"],
        "backbone.layernorm.weight": backbone["norm.weight"],
        "backbone.layernorm.bias": backbone["norm.bias"],
        "/backbone/embeddings/Concat_6": backbone["pos_embed"][:, :1],
        "/backbone/embeddings/Reshape_1": backbone["pos_embed"][:, 1:],
    }
    for i in range(DEPTH):
        there, here = f"backbone.encoder.layer.{i}.", f"blocks.{i}."
        linear = {f"{there}{new}": backbone[f"{here}{old}.weight"] for old, new in ONNX_NAMES.items()}
        bias = {f"{there}{new}": backbone[f"{here}{old}.bias"] for old, new in ONNX_NAMES.items()}
        for part, name in enumerate(("query", "key", "value")):
            place = f"{there}attention.attention.{name}"
            linear[place] = backbone[f"{here}attn.qkv.weight"].chunk(3)[part]
            bias[place] = backbone[f"{here}attn.qkv.bias"].chunk(3)[part]
        for place, weight in linear.items():
            if weight.ndim == 1:
                out[f"{place}.weight"] = weight
            else:
                out["/" + place.replace(".", "/").replace("layer/", "layer.") + "/MatMul"] = weight.T
        out |= {f"{place}.bias": value for place, value in bias.items()}
        out |= {f"{there}layer_scale{j}.lambda1": backbone[f"{here}ls{j}.gamma"] for j in (1, 2)}
    out |= {f"decoder.{name}": value for name, value in decoder.items()}
    return {name: np.ascontiguousarray(value.numpy()) for name, value in out.items()}


def write_onnx(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays as initialisers, each read by one node; those whose name is that of a node have none themselves."""
    from onnx import helper, numpy_helper, save

    nodes, kept = [], []
    for i, (name, value) in enumerate(arrays.items()):
        if name.startswith("/"):
            kind = name.rpartition("/")[2].partition("_")[0]
            own = f"onnx::{kind}_{1000 + i}"
            nodes.append(helper.make_node(kind, ["x", own], [f"y{i}"], name=name))
        else:
            own = name
            nodes.append(helper.make_node("Add", ["x", own], [f"y{i}"], name=f"/node_{i}"))
        kept.append(numpy_helper.from_array(value, own))
    save(helper.make_model(helper.make_graph(nodes, "tiny", [], [], kept)), path)
    return path


def write_tiny(path: Path) -> Path:
    """The tiny network as a file."""
    return write_onnx(path, file_arrays(*random_state()))
