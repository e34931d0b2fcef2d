"""One picture an encoding: what it makes of attention where tokens have no content, drawn from the code itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

import visionpe
from visionpe.utils.files import write_atomic
from visionpe.viewing.attention import Token, attention_layers
from visionpe.viewing.figures import new_figure

SIDE = 12  # tokens a side at the trained size
TIMES = 3  # the larger size
PATCH = 4
NOISE = 0.5
LEFT_OUT = ("patch_resize", "downscale", "decay")  # of any model, and not the encoding's
MOST = 5


@dataclass(frozen=True)
class Panel:
    """Attention of one token at one size under one policy.

    Attributes:
        policy: As it was set.
        nats: ``(side, side)``: the mean weight over heads, in nats above even attention; clipped at -6.
    """

    policy: str
    nats: np.ndarray


def without_content(spec: Any, *, side: int = SIDE, seed: int = 0, noise: float = NOISE) -> nn.Module:
    """A ViT of two blocks in which all patches look alike, and queries and keys are the tokens themselves.

    Blocks add nothing to the tokens, so that what is seen in the second is the encoding: what it adds, turns, and puts
    on the logits.

    Args:
        spec: An encoding.
        side: Tokens a side of the trained size.
        seed: Of the one token that all patches are, and of the noise.
        noise: Standard deviation of what learned parameters get whose own is below a tenth, as they start blank.
    """
    torch.manual_seed(seed)
    width, options = 64, {"num_classes": 0, "class_token": False, "global_pool": "avg", "depth": 2, "num_heads": 4}
    model = timm.create_model(
        "none_vit_ti", pos_encoding=spec, img_size=side * PATCH, patch_size=PATCH, embed_dim=width, **options
    ).eval()
    with torch.no_grad():
        for parameter in model.pos_encoding.parameters():
            if parameter.numel() == 1 or parameter.float().std() < 0.1:
                parameter.normal_(std=noise)
        model.patch_embed.proj.weight.zero_()
        model.patch_embed.proj.bias.normal_()
        for block in model.blocks:
            for part in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
                part.weight.zero_()
                part.bias.zero_()
            block.attn.qkv.weight[:width] = torch.eye(width)
            block.attn.qkv.weight[width : 2 * width] = torch.eye(width)
    return model


@torch.no_grad()
def nats(model: nn.Module, side: int, token: Token) -> np.ndarray:
    """Attention of a token of ``side`` x ``side``, see :class:`Panel`."""
    weights = attention_layers(model, torch.zeros(1, 3, side * PATCH, side * PATCH))[-1].of(token)[0][0]
    return (weights.mean(0) * side * side).clamp_min(1e-12).log().clamp_min(-6).numpy()


def panels(spec: Any, *, side: int = SIDE, times: int = TIMES, seed: int = 0) -> tuple[list[Panel], list[Panel]]:
    """A centre and a corner token: at the trained size, then at ``times`` it under each policy that makes a difference.

    Args:
        spec: An encoding.
        side, times: The trained size in tokens, and how many times larger the other one is.
        seed: See :func:`without_content`.

    Raises:
        ValueError: If no plain ViT can have the encoding.
    """
    model, large = without_content(spec, side=side, seed=seed), side * times
    tokens, larger = [(side // 2, side // 2), (0, 0)], [(large // 2, large // 2), (0, 0)]
    rows: tuple[list[Panel], list[Panel]] = ([], [])
    for row, token in zip(rows, tokens):
        row.append(Panel("trained size", nats(model, side, token)))
    for policy in ("default", *(name for name in visionpe.policies(model) if name not in LEFT_OUT)):
        visionpe.set_policy(model, policy)
        maps = [nats(model, large, token) for token in larger]
        same = any(np.abs(maps[0] - seen.nats).max() < 1e-3 for seen in rows[0][1:])
        if not same and len(rows[0]) <= MOST:
            for row, values in zip(rows, maps):
                row.append(Panel(policy, values))
        visionpe.set_policy(model, "default")
    return rows


def _save_small(path: Path, figure: Any, dpi: int) -> None:
    """Write a PNG of a few colours: tables of noise do not compress otherwise."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    few = Image.open(content).convert("RGB").quantize(48)
    content = io.BytesIO()
    few.save(content, format="PNG", optimize=True)
    write_atomic(path, content.getvalue())


def draw(path: Path, rows: tuple[Sequence[Panel], Sequence[Panel]], title: str) -> None:
    """Write a PNG: the centre token above, the corner token below, one scale of colours for all."""
    figure = new_figure(1.25 * len(rows[0]) + 0.9, 3.0)
    grid = figure.subplots(2, len(rows[0]), squeeze=False)
    most = max(min(float(np.abs(panel.nats).max()), 4.0) for row in rows for panel in row[:2])
    for name, row, line in zip(("centre", "corner"), rows, grid):
        for i, (panel, place) in enumerate(zip(row, line)):
            place.set_xticks([])
            place.set_yticks([])
            shown = place.imshow(panel.nats, cmap="RdBu_r", vmin=-max(most, 0.002), vmax=max(most, 0.002))
            if name == "centre":
                times = "" if i == 0 else f" {TIMES}x"
                place.set_title(f"{panel.policy}{times}", fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    bar = figure.colorbar(shown, ax=grid, fraction=0.03, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
    _save_small(path, figure, 80)


def draw_small(path: Path, row: Sequence[Panel]) -> None:
    """Write a PNG for a table: the centre token at the trained size and, as built, at the larger one."""
    figure = new_figure(1.0, 0.5)
    most = max(min(float(np.abs(panel.nats).max()), 4.0) for panel in row[:2])
    for panel, place in zip(row[:2], figure.subplots(1, 2)):
        place.set_axis_off()
        place.imshow(panel.nats, cmap="RdBu_r", vmin=-max(most, 0.002), vmax=max(most, 0.002))
    _save_small(path, figure, 80)


PAGE = """\
# One picture an encoding

What an encoding alone makes of attention: patches that all look alike, queries and keys that are the tokens themselves,
four heads of sixteen channels. Above the token in the middle, below the one in the corner; on the left at the trained
size, {side} x {side} tokens, then at {times} times it under each policy that makes a difference, five at most. Colours
are nats above (red) and below (blue) even attention, mean over heads, on one scale in each picture. Learned
parameters that start blank have noise of {noise} in them: of a table the picture says how it is stretched, not what it
learns.

`visionpe list pictures --write docs/encoding_pictures.md` draws them all. [Encodings and their options](encodings.md).

"""


def _telling(name: str) -> tuple[tuple[list[Panel], list[Panel]], bool]:
    """Panels of the first of five seeds that acts on attention, and whether one does: networks may be all zeros."""
    for seed in range(5):
        rows = panels(name, seed=seed)
        if max(float(np.abs(panel.nats).max()) for panel in rows[0]) > 5e-3:
            return rows, True
    return rows, False


def write_page(page: Path, names: Sequence[str]) -> list[str]:
    """Draw encodings into ``encodings/`` beside a page, and write the page.

    Args:
        page: A Markdown file.
        names: Of encodings.

    Returns:
        Lines about those that no plain ViT can have.
    """
    folder, text, refused = page.parent / "encodings", [], []
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        encoding = visionpe.get_encoding(name)
        try:
            rows, acts = _telling(name)
        except ValueError as error:
            refused.append(f"`{name}`: {error}")
            continue
        draw(folder / f"{name}.png", rows, name)
        draw_small(folder / f"{name}_small.png", rows[0])
        about = (encoding.__doc__ or "").strip().splitlines()[0]
        even = "" if acts else " *Attention stays even: it acts elsewhere, or not at all.*"
        text.append(f"## {name}\n\n{about} {encoding.source}.{even}\n\n![{name}](encodings/{name}.png)\n")
    if refused:
        text.append("## Not in a plain ViT\n\n" + "\n".join(f"- {line}" for line in refused) + "\n")
    head = PAGE.format(side=SIDE, times=TIMES, noise=NOISE)
    write_atomic(page, head + "\n".join(text))
    return refused
