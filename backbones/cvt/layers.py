"""What CvT has that other pyramids have not: convolutions of queries, keys and values, and a class token at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import trunc_normal_, use_fused_attn
from torch import Tensor, nn

from visionpe.backbones.shared.block import run_block
from visionpe.backbones.shared.conv_embed import Slide
from visionpe.backbones.shared.encoded import encoded_attention
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.reduced import ReducedBlock, ReducedStage
from visionpe.backbones.shared.windowed import EncodedHeads
from visionpe.backbones.shared.windows import Pair
from visionpe.composition import Composition
from visionpe.grid import Grid
from visionpe.tracing import map_size


class ConvNorm(nn.Module):
    """A depthwise convolution and a batch norm.

    Args:
        dim: Channels.
        slide: How the kernel slides.
    """

    def __init__(self, dim: int, slide: Slide, **factory: Any) -> None:
        super().__init__()
        shape = (dim, dim, slide.kernel, slide.stride, slide.padding)
        self.conv = nn.Conv2d(*shape, groups=dim, bias=False, **factory)
        self.bn = nn.BatchNorm2d(dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, height, width)`` to ``(B, N, dim)``."""
        return self.bn(self.conv(x)).flatten(2).transpose(1, 2)


class ConvAttention(EncodedHeads, nn.Module):
    """Attention whose queries, keys and values are convolved ahead of their projections (section 3.3 of the paper).

    As in the authors' code, logits are divided by the root of the width of all heads together.

    Args:
        dim, num_heads: Width of the tokens, and heads.
        kernel: Side of the kernels, tokens.
        stride: Of keys and values along each axis, tokens.
        prefix: Tokens ahead of the map, which are not convolved.
        qkv_bias: In the projections.
        attn_drop, proj_drop: Dropout of attention weights and of what comes out, 0 to 1.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        kernel: int,
        stride: int,
        prefix: int,
        qkv_bias: bool,
        attn_drop: float,
        proj_drop: float,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.num_heads, self.prefix, self.fused_attn = num_heads, prefix, use_fused_attn()
        self.logit_factor = dim**-0.5
        self.slide = Slide(kernel, stride, kernel // 2)
        self.conv_proj_q = ConvNorm(dim, Slide(kernel, 1, kernel // 2), **factory)
        self.conv_proj_k, self.conv_proj_v = (ConvNorm(dim, self.slide, **factory) for _ in range(2))
        self.proj_q, self.proj_k, self.proj_v = (nn.Linear(dim, dim, bias=qkv_bias, **factory) for _ in range(3))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj, self.proj_drop = nn.Linear(dim, dim, **factory), nn.Dropout(proj_drop)

    def grid(self, size: Pair) -> Grid:
        """Where queries and keys stand, of a map of this size."""
        if self.slide.stride == 1:
            return Grid(size, self.prefix)
        return Grid(self.slide.size(size), self.prefix, queries=size)

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """Tokens ``(B, prefix + height * width, dim)`` to the same."""
        (cut,) = partitions
        prefix, tokens = x[:, : self.prefix], x[:, self.prefix :]
        on_map = tokens.transpose(1, 2).unflatten(2, cut.windows.size)  # (B, dim, height, width)
        ways = (
            (self.conv_proj_q, self.proj_q),
            (self.conv_proj_k, self.proj_k),
            (self.conv_proj_v, self.proj_v),
        )
        q, k, v = (
            proj(torch.cat((prefix, conv(on_map)), dim=1)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for conv, proj in ways
        )  # (B, heads, prefix + N, head_dim)
        attended = encoded_attention(
            q,
            k,
            v,
            cut.encoding,
            cut.grid,
            layer=cut.layer,
            scale=self.logit_factor,
            attended=self.attended,
            tokens=x if cut.encoding.reads_tokens else None,
        )
        return self.projected(attended.transpose(1, 2).flatten(2), None)  # type: ignore[operator]


class ConvBlock(ReducedBlock):
    """A block on a map, and on a class token besides where there is one."""

    def forward(
        self, x: Tensor, encoding: Composition, partitions: Sequence[Partition], token: Tensor | None = None
    ) -> Any:
        """Map ``(B, height, width, dim)``, or map and token ``(B, 1, dim)``, to the same."""
        size, tokens = map_size(x), x.flatten(1, 2)
        if token is not None:
            tokens = torch.cat((token, tokens), dim=1)
        grid = Grid(size, 0 if token is None else 1)
        told = self.norm1(tokens)
        if encoding.acts("inject"):
            told = encoding.inject(told, grid, layer=self.layer)
        tokens = tokens + self.attention_branch(self.attn(told, partitions))
        tokens = tokens + self.mlp_branch(tokens)
        if encoding.acts("refine"):
            tokens = encoding.refine(tokens, grid, layer=self.layer)
        x = tokens[:, grid.prefix :].unflatten(1, size)
        return x if token is None else (x, tokens[:, :1])


class ConvStage(ReducedStage):
    """A stage, with a class token if it is the last.

    Args:
        args: Of the stage.
        token_dim: Width of the class token; 0 for none.
    """

    def __init__(self, *args: Any, token_dim: int, **factory: Any) -> None:
        super().__init__(*args)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, token_dim, **factory)) if token_dim else None
        if self.cls_token is not None:
            trunc_normal_(self.cls_token, std=0.02)

    def run(self, x: Tensor) -> Any:
        """The map ``(B, height, width, C)``, or the map and the token ``(B, 1, C)``."""
        if self.cls_token is None:
            return super().run(x)
        token = self.cls_token.expand(x.shape[0], -1, -1)
        for index, (block, partitions) in enumerate(zip(self.blocks, self.partitions(map_size(x), x.device))):
            encoding: Any = self.pos_encoding.map
            more = {"checkpointed": self.grad_checkpointing}
            x, token = run_block(block, index, x, encoding, partitions, token, **more)
        return x, token
