"""The same computation by other code: timm's modules and models, and iRPE by its paper's matrix.

At level ``attention`` every peer gets our weights and must give our output. Peers know no class token.

There is none for ``attention_bias``: LeViT's module has batch norms inside its linear layers and an activation before
the last one, and keeps its bias between calls. SwinV2's own module has cosine attention, so ``cpb`` meets the same
bias in timm's ``RelPosMlp``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import RelPosMlp, create_rope_embed
from timm.layers.attention import AttentionRope
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from timm.models.vision_transformer_sam import Attention as SamAttention
from torch import Tensor, nn

from visionpe import Grid

# Largest difference of outputs, float32.
TOLERANCE = 1e-4
Builder = Callable[[nn.Module, Any, tuple[int, int]], nn.Module]


class MismatchError(RuntimeError):
    """A peer gives another output than ours, so that their times cannot be compared."""


class _Shaped(nn.Module):
    """A module of maps ``(B, height, width, dim)`` as one of tokens."""

    def __init__(self, inner: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.inner, self.size = inner, size

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.unflatten(1, self.size)).flatten(1, 2)


class _Roped(nn.Module):
    """timm's rotary attention with the table that its models hand to every block."""

    def __init__(self, inner: nn.Module, table: nn.Module, *, layered: bool) -> None:
        super().__init__()
        self.inner, self.table, self.layered = inner, table, layered

    def forward(self, x: Tensor) -> Tensor:
        rope = self.table.get_embed()  # type: ignore[operator]
        return self.inner(x, rope=rope[0] if self.layered else rope)


class Gathered(nn.Module):
    """iRPE on keys, product method, as the paper's code does it in plain PyTorch.

    Every query meets every bucket, one flat index over all queries and keys picks a matrix from that, and it is added
    to the logits of attention as written. The index is made once, as there.
    """

    index: Tensor

    def __init__(self, num_heads: int, dim: int, table: Tensor, index: Tensor) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), num_heads
        self.table = nn.Parameter(table.clone())  # (1 or heads, head_dim, buckets)
        first = torch.arange(len(index))[:, None] * table.shape[-1]
        self.register_buffer("index", (index + first).flatten())  # (N * N,)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, head_dim)
        q = q * q.shape[-1] ** -0.5
        products = q @ self.table.to(q.dtype)  # (B, heads, N, buckets)
        matrix = products.flatten(2)[:, :, self.index].unflatten(2, (tokens, tokens))  # (B, heads, N, N)
        attended = (q @ k.transpose(-2, -1) + matrix).softmax(dim=-1) @ v
        return self.proj(attended.transpose(1, 2).reshape(batch, tokens, dim))


def _same_linears(peer: nn.Module, attention: nn.Module) -> None:
    for name in ("qkv", "proj"):
        getattr(peer, name).load_state_dict(getattr(attention, name).state_dict())


def _samvit(attention: nn.Module, encoding: Any, size: tuple[int, int]) -> nn.Module:
    peer = SamAttention(encoding.dim, encoding.num_heads, use_rel_pos=True, input_size=size)
    _same_linears(peer, attention)
    peer.rel_pos_h.copy_(encoding.height_table[0])
    peer.rel_pos_w.copy_(encoding.width_table[0])
    return _Shaped(peer, size)


def _swin(attention: nn.Module, encoding: Any, size: tuple[int, int]) -> nn.Module:
    peer = WindowAttention(encoding.dim, encoding.num_heads, window_size=size)
    _same_linears(peer, attention)
    peer.relative_position_bias_table.copy_(encoding.table[0].flatten(1).T)
    return peer


def _relpos_mlp(attention: nn.Module, encoding: Any, size: tuple[int, int]) -> nn.Module:
    first, _, last = encoding.mlp[0]
    network = partial(RelPosMlp, window_size=size, hidden_dim=first.out_features, mode="swin")
    peer = RelPosAttention(encoding.dim, encoding.num_heads, qkv_bias=True, rel_pos_cls=network)
    _same_linears(peer, attention)
    peer.rel_pos.mlp.fc1.load_state_dict(first.state_dict())
    peer.rel_pos.mlp.fc2.load_state_dict(last.state_dict())
    return peer


def _rope(kind: str, attention: nn.Module, encoding: Any, size: tuple[int, int]) -> nn.Module:
    every: dict[str, dict[str, Any]] = {
        "cat": {"in_pixels": False, "temperature": 100.0, "grid_indexing": "xy"},
        "mixed": {"depth": 1},
        "dinov3": {"temperature": 100.0},
    }
    options = every[kind]
    table = create_rope_embed(kind, dim=encoding.dim, num_heads=encoding.num_heads, feat_shape=list(size), **options)
    if kind == "mixed":
        table.freqs.copy_(encoding.freqs[:, :1])
    peer = AttentionRope(encoding.dim, encoding.num_heads, num_prefix_tokens=0, rotate_half=kind == "dinov3")
    _same_linears(peer, attention)
    return _Roped(peer, table, layered=kind == "mixed")


def _gathered(attention: nn.Module, encoding: Any, size: tuple[int, int]) -> nn.Module:
    index = encoding.index(Grid(size), 0, size[0] * size[1], torch.device("cpu"))[0]
    peer = Gathered(encoding.num_heads, encoding.dim, encoding.k_table[0, 0].detach(), index)
    _same_linears(peer, attention)
    return peer


# What each is called, and how it is built from our attention, its encoding and the tokens per axis.
ATTENTION: dict[str, tuple[str, Builder]] = {
    "decomposed": ("timm samvit", _samvit),
    "rpb": ("timm swin", _swin),
    "cpb": ("timm RelPosMlp", _relpos_mlp),
    "rope_axial": ("timm AttentionRope", partial(_rope, "cat")),
    "rope_mixed": ("timm AttentionRope", partial(_rope, "mixed")),
    "rope_norm": ("timm AttentionRope", partial(_rope, "dinov3")),
    "irpe": ("plain gather", _gathered),
}
# timm's whole models that do the same, and whether ours loads their weights and must give their output.
MODELS: dict[str, tuple[str, bool]] = {
    "ape": ("deit3_small_patch16_224", True),
    "rope_axial": ("vit_small_patch16_rope_224", True),
    "rope_mixed": ("vit_small_patch16_rope_mixed_224", True),
    "rope_mixed+ape": ("vit_small_patch16_rope_mixed_ape_224", True),
    "rpb": ("vit_relpos_small_patch16_224", False),
}


@torch.no_grad()
def attention_peer(spec: str, attention: nn.Module, encoding: Any, size: tuple[int, int]) -> dict[str, nn.Module]:
    """The peer of an attention module by its name, with the same weights, in eval mode; empty if there is none.

    Args:
        spec: Of the encoding.
        attention: Ours.
        encoding: What it is told of positions, alone.
        size: Tokens per axis.
    """
    if spec not in ATTENTION:
        return {}
    name, builder = ATTENTION[spec]
    return {name: builder(attention, encoding, size).eval()}


@torch.no_grad()
def model_peer(spec: str, model: nn.Module, pixels: int) -> dict[str, nn.Module]:
    """timm's model of the same kind by its name, whose weights ``model`` takes over where it can."""
    if spec not in MODELS:
        return {}
    name, loads = MODELS[spec]
    peer = timm.create_model(name, img_size=pixels, init_values=1.0).eval()
    if loads:
        model.load_state_dict(peer.state_dict())
    return {f"timm {name}": peer}


@torch.no_grad()
def difference(spec: str, name: str, ours: nn.Module, peer: nn.Module, x: Tensor) -> float:
    """Largest difference of the outputs.

    Raises:
        MismatchError: If it is above ``TOLERANCE``.
    """
    found = (ours(x) - peer(x)).abs().max().item()
    if not found <= TOLERANCE:
        raise MismatchError(f"{spec} and {name} differ by {found:.1e} on the same weights; allowed: {TOLERANCE}")
    return found
