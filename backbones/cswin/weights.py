"""Published CSWin checkpoints: from the official key layouts to ours."""

from __future__ import annotations

import re
from typing import Any

from visionpe.backbones.shared.loading import fit_pyramid
from visionpe.utils.weight_files import StateDict

STEM = {"0": "patch_embed.proj", "2": "patch_embed.norm"}


def _renamed(key: str, state: StateDict) -> str:
    """An official key in our words."""
    if match := re.fullmatch(r"stage1_conv_embed\.(\d)\.(\w+)", key):
        return f"{STEM[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"merge(\d+)\.(.+)", key):
        return f"stages.{match[1]}.downsample.{match[2]}"
    if match := re.fullmatch(r"norm(\d+)\.(\w+)", key):
        return f"norms.{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(r"head\.(\w+)", key):
        return f"head.fc.{match[1]}"
    if match := re.fullmatch(r"stage(\d+)\.(\d+)\.(.+)", key):
        stage, block, rest = int(match[1]) - 1, match[2], match[3]
        if branch := re.fullmatch(r"attns\.(\d)\.get_v\.(\w+)", rest):
            two = f"stage{match[1]}.{block}.attns.1.get_v.weight" in state
            kind = ("vertical", "horizontal")[int(branch[1])] if two else "full"
            return f"stages.{stage}.pos_encoding.inside.{kind}.lepe.convs.{block}.{branch[2]}"
        inner = f"attn.{rest}" if rest.startswith(("qkv.", "proj.")) else rest
        return f"stages.{stage}.blocks.{block}.{inner}"
    return key


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn the official layouts (classifier, backbone for dense prediction) into ours; ours stays as it is.

    A file of the dense backbone may hold a whole segmentor or detector. It makes the padding of the model that of the
    official code, unmasked zeros, unless the user chose it; a classification file undoes that.
    """
    if any(key.startswith("backbone.stage1_conv_embed.") for key in state):
        state = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    out = dict(state)
    if "stage1_conv_embed.0.weight" in state:
        out = {_renamed(key, state): value for key, value in state.items()}
        if not model.padding_is_chosen:
            model._set_padding("values" if "norms.0.weight" in out else "mask")
    return fit_pyramid(out, model)
