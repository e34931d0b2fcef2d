"""CSWin written straightforwardly, branch by branch, to measure our own against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionpe.backbones import CSWinTransformer


class Plain(nn.Module):
    """The same network as a :class:`CSWinTransformer` with LePE, in the plainest way, for maps its stripes divide.

    In each branch queries, keys and values go to stripes one by one, through copies; LePE convolves each stripe in
    NCHW; attention is written out.

    Args:
        model: Whose weights it uses.

    Raises:
        ValueError: If the encoding of ``model`` is not LePE alone.
    """

    def __init__(self, model: CSWinTransformer) -> None:
        super().__init__()
        names = {part.name for stage in model.stages for part in stage.pos_encoding.parts}
        if names != {"lepe"}:
            raise ValueError(f"pos_encoding={'+'.join(sorted(names))!r} is not written out here; allowed: lepe")
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        x = self.model.patch_embed.proj(x)
        x, size = _tokens(x)
        x = self.model.patch_embed.norm(x)
        for index, stage in enumerate(self.model.stages):
            if index:
                x, size = _tokens(stage.downsample.conv(_map(x, size)))
                x = stage.downsample.norm(x)
            shapes = [windows.window for windows in stage.windows(size).values()]
            lepes = [inside["lepe"] for inside in stage.pos_encoding.inside.values()]
            for layer, block in enumerate(stage.blocks):
                x = x + self._attention(block, block.norm1(x), size, shapes, [each.convs[layer] for each in lepes])
                x = x + block.mlp(block.norm2(x))
        return self.model.head.fc(self.model.norm(x).mean(dim=1))

    @staticmethod
    def _attention(
        block: Any, x: Tensor, size: tuple[int, int], shapes: list[tuple[int, int]], convs: list[nn.Module]
    ) -> Tensor:
        """Tokens ``(B, N, dim)`` to the same."""
        batch, tokens, dim = x.shape
        width, heads = dim // len(shapes), block.attn.num_heads // len(shapes)
        qkv = block.attn.qkv(x).reshape(batch, tokens, 3, dim).permute(2, 0, 1, 3)
        branches = []
        for index, (shape, conv) in enumerate(zip(shapes, convs)):
            q, k, v = qkv[..., index * width : (index + 1) * width]  # (B, N, width)
            q, k = (_heads(_stripes(_map(t, size), shape).flatten(2), heads) for t in (q, k))
            images = _stripes(_map(v, size), shape).unflatten(2, shape)  # (B * stripes, width, rows, columns)
            local, v = (_heads(t.flatten(2), heads) for t in (conv(images), images))
            weights = ((q * (width // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
            mixed = weights @ v + local  # (B * stripes, heads, tokens, head_dim)
            branches.append(_joined(mixed, size, shape))
        return block.attn.proj(torch.cat(branches, dim=2))


def _tokens(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """``(B, C, height, width)`` to ``(B, N, C)``, and the size of the map."""
    return x.flatten(2).transpose(1, 2).contiguous(), (x.shape[2], x.shape[3])


def _map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, N, C)`` to ``(B, C, height, width)``."""
    return x.transpose(1, 2).contiguous().reshape(x.shape[0], x.shape[2], *size)


def _stripes(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """``(B, C, height, width)`` to ``(B * stripes, C, tokens)``."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // shape[0], shape[0], width // shape[1], shape[1])
    return x.permute(0, 2, 4, 1, 3, 5).contiguous().reshape(-1, channels, shape[0] * shape[1])


def _heads(x: Tensor, heads: int) -> Tensor:
    """``(B * stripes, C, tokens)`` to ``(B * stripes, heads, tokens, head_dim)``."""
    return x.reshape(x.shape[0], heads, -1, x.shape[2]).transpose(2, 3).contiguous()


def _joined(x: Tensor, size: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """``(B * stripes, heads, tokens, head_dim)`` to ``(B, N, C)``."""
    rows, columns = size[0] // shape[0], size[1] // shape[1]
    x = x.transpose(1, 2).reshape(-1, rows, columns, *shape, x.shape[1] * x.shape[3])
    x = x.permute(0, 1, 3, 2, 4, 5).contiguous()
    return x.reshape(x.shape[0], size[0] * size[1], -1)
