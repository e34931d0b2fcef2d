"""Published Swin3D checkpoints: their keys are ours; tables of a level's blocks stand in one tensor inside."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visionpe.utils.timm_reading import load_state_dict as read_checkpoint
from visionpe.utils.weight_files import StateDict, unwrapped

# What training code and pipelines put ahead of the keys.
PREFIXES = ("module.", "backbone.", "model.")
DECODER = ("upsamples.", "classifier.")
STACKED = re.compile(r"(.*)pos_encoding\.inside\.window\.crse\.(\w+_table)")
SINGLE = re.compile(r"(.*)blocks\.(\d+)\.attn\.((?:query|key|value)_\w+_table)")


class Filtered(NamedTuple):
    """What :func:`load_filtered` did.

    Args:
        loaded: Keys that were loaded.
        skipped: Keys of the file that were not.
        kept: Keys of the model that keep what they had.
    """

    loaded: list[str]
    skipped: list[str]
    kept: list[str]


def to_published_keys(
    module: Any, state: dict[str, Any], prefix: str = "", local_metadata: Any = None
) -> dict[str, Any]:
    """Names of modules to published ones, in place; a hook of ``state_dict``."""
    for key in [key for key in state if key.startswith(prefix)]:
        if match := STACKED.fullmatch(key[len(prefix) :]):
            for i, table in enumerate(state.pop(key)):
                state[f"{prefix}{match[1]}blocks.{i}.attn.{match[2]}"] = table
    return state


def to_module_keys(state: Mapping[str, Tensor], model: Any) -> StateDict:
    """Published names to those of modules; tables that do not fill a level stay as they are."""
    out: StateDict = {}
    groups: dict[tuple[str, str], dict[int, Tensor]] = defaultdict(dict)
    for key, value in state.items():
        if match := SINGLE.fullmatch(key):
            groups[match[1], match[3]][int(match[2])] = value
        else:
            out[key] = value
    own = {name for name, _ in model.named_parameters()}
    for (level, table), tensors in groups.items():
        target = f"{level}pos_encoding.inside.window.crse.{table}"
        same = len({t.shape for t in tensors.values()}) == 1 and sorted(tensors) == list(range(len(tensors)))
        if target in own and same:
            out[target] = torch.stack([tensors[i] for i in range(len(tensors))])
        else:
            out |= {f"{level}blocks.{i}.attn.{table}": t for i, t in tensors.items()}
    return out


def published(state: Mapping[str, Tensor], model: Any) -> StateDict:
    """A file in the published layout: prefixes are taken off, and an encoder leaves the decoder out."""
    out = dict(state)
    for _ in PREFIXES:
        for prefix in PREFIXES:
            if out and all(key.startswith(prefix) for key in out):
                out = {key[len(prefix) :]: value for key, value in out.items()}
    out = to_published_keys(model, out)
    if not len(getattr(model, "upsamples", ())):
        out = {key: value for key, value in out.items() if not key.startswith(DECODER)}
    for key in [key for key in out if key.endswith(".running_mean")]:
        out.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return out


def load_filtered(model: Any, checkpoint: Any, *, skip_first_conv: bool = True) -> Filtered:
    """Load what fits of pre-trained weights, as the authors do to fine-tune on other data.

    The decoder and the classifier are left out, since those of pre-training differ; so are keys that the model lacks
    or has in another shape.

    Args:
        model: A Swin3D of ours.
        checkpoint: A path, or the content of a file.
        skip_first_conv: Leave the stem out, whose input differs between data sets. As published: for ScanNet, not for
            S3DIS.

    Returns:
        Which keys were loaded, which of the file were not, and which of the model keep what they had.

    Raises:
        ValueError: If nothing fits.
        FileNotFoundError: If there is no such file.
    """
    content = read_checkpoint(str(checkpoint), use_ema=False) if isinstance(checkpoint, (str, Path)) else checkpoint
    given = published(unwrapped(content), model)
    own = model.state_dict()
    out = (*DECODER, "stem_layer.") if skip_first_conv else DECODER
    fits = {
        key: value
        for key, value in given.items()
        if not key.startswith(out) and key in own and own[key].shape == value.shape
    }
    if not fits:
        raise ValueError(
            f"checkpoint: none of its {len(given)} keys fits a {model.description}; "
            f"the first is {next(iter(given), None)!r}"
        )
    model.load_state_dict({**own, **fits})
    return Filtered(sorted(fits), sorted(given.keys() - fits.keys()), sorted(own.keys() - fits.keys()))
