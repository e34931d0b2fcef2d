"""Published Swin checkpoints: from timm's, the original and RoPE-Swin's key layouts to ours."""

from __future__ import annotations

import re
from collections import defaultdict
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from visionpe.backbones.shared.loading import fit_patches, fit_pyramid
from visionpe.encodings.rotary.rope_axial import AxialRoPE, axial_frequencies
from visionpe.encodings.wrappers.base import innermost
from visionpe.utils.weight_files import StateDict, Weights

# Computed anew at every size.
REBUILT = (".attn_mask", ".relative_position_index", ".rope_t_x", ".rope_t_y")
# In every block of a stage, where we have one tensor a stage.
PER_BLOCK = {"relative_position_bias_table": "rpb.table", "rope_freqs": "rope_mixed.freqs"}

Pair = tuple[int, int]


def _is_original(state: StateDict) -> bool:
    """True for the layout of the original code and RoPE-Swin's, where a stage ends by merging; timm's begin so."""
    marks = (*REBUILT, ".rope_freqs")
    return "layers.0.downsample.reduction.weight" in state or any(key.endswith(marks) for key in state)


def as_map(table: Tensor, window: Pair, tokens: int | None) -> Tensor:
    """``(entries, heads)`` to ``(heads, 2 height - 1, 2 width - 1)``.

    Args:
        table: As in the file.
        window: Of the model. It need not be square, so a table that fits it is of one like it.
        tokens: In a window of the file, where that tells.
    """
    side = isqrt(len(table))
    # A window of n tokens has 2 n - 1 offsets.
    shapes = [(2 * window[0] - 1, 2 * window[1] - 1), *([(side, side)] if side % 2 else [])]
    for height, width in shapes:
        if height * width == len(table) and tokens in (None, (height + 1) // 2 * ((width + 1) // 2)):
            return table.T.unflatten(1, (height, width))
    raise RuntimeError(
        f"relative_position_bias_table of {len(table)} entries is neither of a square window nor of "
        f"{window[0]} x {window[1]}"
    )


def _theta(freqs: Tensor) -> float | None:
    """Base of fixed axial frequencies ``(axes, depth, heads, pairs)``; None of learned ones."""
    axes, pairs = freqs.shape[0], freqs.shape[-1]
    bands = pairs // axes
    if bands < 2 or not 0 < (second := float(freqs[0, 0, 0, 1])) < 1:
        return None
    theta = second**-bands
    own = axial_frequencies(theta, axes, pairs, freqs.device)[:, None]  # (axes, 1, 1, pairs)
    return theta if torch.allclose(freqs.float(), own.expand_as(freqs), atol=1e-4) else None


def _axial(encoding: Any) -> AxialRoPE | None:
    part = {each.name: innermost(each) for each in encoding.parts}.get("rope_axial")
    return part if isinstance(part, AxialRoPE) else None


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn timm's, the original and RoPE-Swin's key layouts into ours; ours stays as it is.

    A model whose ``window_fit`` nobody chose takes that of the code that the file comes from. Fixed frequencies in a
    file are left out where they are those of the model; of another base they are a problem.

    Raises:
        RuntimeError: If a table has no shape that a window could have.
    """
    original = _is_original(state)
    if any(key.startswith("layers.") for key in state) and not model.window_fit_is_chosen:
        model.set_window_fit("shorter_side" if original else "per_axis", chosen=False)
    later = "layers.0.downsample.reduction.weight" in state
    out: StateDict = {}
    blocks: dict[tuple[int, str], dict[int, Tensor]] = defaultdict(dict)
    for key, value in state.items():
        if key.endswith(REBUILT):
            continue
        if match := re.fullmatch(rf"layers\.(\d+)\.blocks\.(\d+)\.attn\.({'|'.join(PER_BLOCK)})", key):
            blocks[int(match[1]), match[3]][int(match[2])] = value
            continue
        if match := re.fullmatch(r"layers\.(\d+)\.(downsample\..+|blocks\..+)", key):
            key = f"stages.{int(match[1]) + (later and match[2].startswith('downsample'))}.{match[2]}"
        elif match := re.fullmatch(r"head\.(weight|bias)", key):
            key = f"head.fc.{match[1]}"
        elif key == "patch_embed.proj.weight" and value.ndim == 4:
            value = fit_patches(value, model.patch_embed.patch_size)
        out[key] = value
    problems: list[str] = []
    for (stage, name), values in blocks.items():
        out |= _joined(stage, name, values, model, state, problems)
    source = state if isinstance(state, Weights) else Weights()
    return source.derived(fit_pyramid(out, model), problems=dict.fromkeys(problems))


def _joined(
    stage: int, name: str, values: dict[int, Tensor], model: Any, state: StateDict, problems: list[str]
) -> StateDict:
    """One tensor of our layout from those of the blocks of a stage; as they are where some are missing.

    Args:
        stage: Its index.
        name: What a block calls its tensor.
        values: Those of the blocks, by index.
        model: The model.
        state: The whole file.
        problems: Takes what the model does otherwise.
    """
    target = f"stages.{stage}.pos_encoding.inside.window.{PER_BLOCK[name]}"
    tensors = [values[i] for i in sorted(values)]
    if stage >= len(model.stages):  # fit_pyramid judges
        return {target: tensors[0]}
    if len(tensors) != len(model.stages[stage].blocks) or len({t.shape for t in tensors}) > 1:
        return {f"layers.{stage}.blocks.{i}.attn.{name}": t for i, t in values.items()}
    if name == "relative_position_bias_table":
        index = state.get(f"layers.{stage}.blocks.{min(values)}.attn.relative_position_index")
        tokens = None if index is None else index.shape[0]
        return {target: torch.stack([as_map(t, model.stages[stage].window_size, tokens) for t in tensors])}
    freqs = torch.stack(tensors, dim=1)  # (axes, depth, heads, pairs)
    part = _axial(model.stages[stage].pos_encoding.inside["window"])
    if part is not None and freqs.shape[-1] == part.head_dim // 2 and (theta := _theta(freqs)) is not None:
        if abs(theta / part.theta - 1) < 1e-3:
            return {}
        problems.append(f"theta={part.theta:g} of rope_axial is not that of the file; allowed: {theta:.4g}")
    return {target: freqs}
