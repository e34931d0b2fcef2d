"""Published CPVT v2 checkpoints: from the key layout of Twins, which is timm's too, to ours."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.shared.loading import fit_pyramid, renamed
from visionpe.utils.weight_files import StateDict

RULES = (
    (r"patch_embeds\.0\.", "patch_embed."),
    (r"patch_embeds\.(\d+)\.", r"stages.\1.downsample."),
    (r"blocks\.(\d+)\.", r"stages.\1.blocks."),
    (r"pos_block\.(\d+)\.proj\.0\.", r"stages.\1.pos_encoding.map.cpe.convs.0."),
    (r"head\.(?=weight$|bias$)", "head.fc."),
)


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn the official layout into ours, of a backbone inside a detector or segmentor too; ours stays as it is."""
    return fit_pyramid(renamed(state, RULES, mark="patch_embeds.0.proj.weight"), model)
