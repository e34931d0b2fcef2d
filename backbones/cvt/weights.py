"""Published CvT checkpoints: from the key layouts of the authors and of Hugging Face to ours."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.shared.loading import fit_pyramid, renamed
from visionpe.utils.weight_files import StateDict

AUTHORS = (
    (r"stage0\.patch_embed\.", "patch_embed."),
    (r"stage(\d+)\.patch_embed\.", r"stages.\1.downsample."),
    (r"stage(\d+)\.", r"stages.\1."),
    (r"head\.(?=weight$|bias$)", "head.fc."),
)
LETTERS = {"query": "q", "key": "k", "value": "v"}
EMBED, BLOCK = (
    r"encoder\.stages\.(\d+)\.embedding\.convolution_embeddings\.",
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.",
)
IN_ATTENTION, CONV = rf"{BLOCK}attention\.attention\.", r"\.convolution_projection\."
# To the words of the authors.
HUGGING_FACE = (
    (rf"{EMBED}projection\.", r"stage\1.patch_embed.proj."),
    (rf"{EMBED}normalization\.", r"stage\1.patch_embed.norm."),
    *(
        rule
        for word, letter in LETTERS.items()
        for rule in (
            (
                rf"{IN_ATTENTION}convolution_projection_{word}{CONV}convolution\.",
                rf"stage\1.blocks.\2.attn.conv_proj_{letter}.conv.",
            ),
            (
                rf"{IN_ATTENTION}convolution_projection_{word}{CONV}normalization\.",
                rf"stage\1.blocks.\2.attn.conv_proj_{letter}.bn.",
            ),
            (rf"{IN_ATTENTION}projection_{word}\.", rf"stage\1.blocks.\2.attn.proj_{letter}."),
        )
    ),
    (rf"{BLOCK}attention\.output\.dense\.", r"stage\1.blocks.\2.attn.proj."),
    (rf"{BLOCK}intermediate\.dense\.", r"stage\1.blocks.\2.mlp.fc1."),
    (rf"{BLOCK}output\.dense\.", r"stage\1.blocks.\2.mlp.fc2."),
    (rf"{BLOCK}layernorm_before\.", r"stage\1.blocks.\2.norm1."),
    (rf"{BLOCK}layernorm_after\.", r"stage\1.blocks.\2.norm2."),
    (r"encoder\.stages\.(\d+)\.", r"stage\1."),
    (r"layernorm\.", "norm."),
    (r"classifier\.", "head."),
)
MARK = "encoder.stages.0.embedding.convolution_embeddings.projection.weight"


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn the layouts of the authors and of Hugging Face into ours; ours stays as it is.

    Both hold the authors' weights and are computed as in the authors' code, which has the quick GELU.
    """
    if f"cvt.{MARK}" in state:
        state = {key.removeprefix("cvt."): value for key, value in state.items()}
    state = renamed(state, HUGGING_FACE, mark=MARK)
    return fit_pyramid(renamed(state, AUTHORS, mark="stage0.patch_embed.proj.weight"), model)
