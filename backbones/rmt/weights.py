"""Published RMT checkpoints: from the official key layouts to ours."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from visionpe.backbones.shared.loading import fit_pyramid
from visionpe.cache import TableCache
from visionpe.encodings.wrappers.base import innermost
from visionpe.utils.weight_files import StateDict, Weights

# Of a block, theirs and ours; queries, keys and values are one projection here.
BLOCK = {
    "retention_layer_norm": "norm1",
    "retention.out_proj": "attn.proj",
    "final_layer_norm": "norm2",
    "ffn.fc1": "mlp.fc1",
    "ffn.fc2": "mlp.fc2",
    "ffn.dwconv.conv": "mlp.conv",
}
POSITIONS = {"pos.conv": "map.cpe", "retention.lepe.conv": "inside.whole.lepe"}
HEAD = {"head": "head.fc", "aux_head": "head.aux", "proj": "head.proj", "norm": "head.norm"}


def _renamed(key: str) -> str:
    """An official key in our words."""
    if key.startswith("patch_embed.proj."):
        return key.replace("proj", "layers", 1)
    if match := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", key):
        return f"stages.{int(match[1]) + 1}.downsample.{match[2]}"
    if match := re.fullmatch(r"extra_norms\.(.+)", key):
        return f"norms.{match[1]}"
    if match := re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.(?:(.+)\.(\w+)|gamma_([12]))", key):
        stage, index, name, kind, scale = match.groups()
        if scale:
            return f"stages.{stage}.blocks.{index}.ls{scale}.gamma"
        if name in POSITIONS:
            return f"stages.{stage}.pos_encoding.{POSITIONS[name]}.convs.{index}.{kind}"
        return f"stages.{stage}.blocks.{index}.{BLOCK.get(name, name)}.{kind}"
    if (match := re.fullmatch(r"(\w+)\.(\w+)", key)) and match[1] in HEAD:
        return f"{HEAD[match[1]]}.{match[2]}"
    return key


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn the official layouts (classifier, backbone for dense prediction) into ours; ours stays as it is.

    A file of the dense backbone may hold a whole segmentor or detector. The decays in a file, which its code computes
    with, become those of the model; angles that are not those of the model are a problem.
    """
    if any(key.startswith("backbone.layers.") for key in state):
        state = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    if not any(key.startswith("layers.") for key in state):
        return fit_pyramid(state, model)
    out: StateDict = {}
    projections: dict[str, dict[str, Tensor]] = defaultdict(dict)
    problems: list[str] = []
    for key, value in state.items():
        if match := re.fullmatch(r"layers\.(\d+)\.Relpos\.(angle|decay)", key):
            if int(match[1]) < len(model.stages):
                (_check_angle if match[2] == "angle" else _take_decay)(value, int(match[1]), model, problems)
        elif match := re.fullmatch(r"layers\.(\d+\.blocks\.\d+)\.retention\.([qkv])_proj\.(\w+)", key):
            projections[f"stages.{match[1]}.attn.qkv.{match[3]}"][match[2]] = value
        else:
            out[_renamed(key)] = value.flatten() if re.search(r"\.gamma_[12]$", key) else value
    for key, parts in projections.items():
        if parts.keys() == set("qkv"):
            out[key] = torch.cat([parts[name] for name in "qkv"])
        else:  # which shows that some are missing
            out |= {f"{key}.{name}": value for name, value in parts.items()}
    if model.norms is not None and not any(key.startswith("norms.") for key in out):
        for i, norm in enumerate(model.norms):
            out |= {f"norms.{i}.{name}": torch.full_like(p, name == "weight") for name, p in norm.named_parameters()}
    source = state if isinstance(state, Weights) else Weights()
    return source.derived(fit_pyramid(out, model), problems=dict.fromkeys(problems))


def _parts(stage: int, name: str, model: Any) -> list[Any]:
    """The encodings of a name in a stage."""
    own = (innermost(part) for part in model.stages[stage].pos_encoding.parts)
    return [part for part in own if part.name == name]


def _check_angle(angle: Tensor, stage: int, model: Any, problems: list[str]) -> None:
    """Each angle stands there twice, for both channels of a pair."""
    for part in _parts(stage, "rope_raster", model):
        own = part.frequencies(0, angle.device).flatten().repeat_interleave(2)
        if own.shape != angle.shape or not torch.allclose(own, angle.float(), rtol=1e-4, atol=0):
            problems.append(
                f"theta={part.theta:g} of rope_raster, or the heads of stage {stage}, are not those of the file"
            )


def _take_decay(decay: Tensor, stage: int, model: Any, problems: list[str]) -> None:
    """Give a stage the decays of a file, ``(heads,)``."""
    for part in _parts(stage, "manhattan", model):
        given = decay.double().cpu()
        if len(given) != part.num_heads:
            problems.append(f"num_heads={part.num_heads} of stage {stage} is not that of the file: {len(given)}")
            continue
        if _close(part.decays(), given):
            continue
        exponents = -torch.log2(1 - given.exp())
        steps = max(len(given) - 1, 1)
        first, spread = float(exponents[0]), float(exponents[-1] - exponents[0]) / steps * len(given)
        before = part.init_value, part.decay_range
        part.init_value = round(first, 3)
        part.decay_range = round(spread, 3) if len(given) > 1 else part.decay_range
        if not (0 < part.init_value <= 50 and 0 <= part.decay_range <= 50 and _close(part.decays(), given)):
            part.init_value, part.decay_range = before
            problems.append(f"Relpos.decay of stage {stage} follows from no init_value and decay_range")
            continue
        part.cache = TableCache()
        for name, value in (("decay_init", part.init_value), ("decay_range", part.decay_range)):
            values = list(getattr(model, name))
            values[stage] = value
            setattr(model, name, tuple(values))


def _close(own: list[float], given: Tensor) -> bool:
    return torch.allclose(torch.tensor(own, dtype=torch.float64), given, rtol=1e-3, atol=2e-7)
