"""What ``visionpe look`` can be asked for. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LookOptions:
    """Options of ``visionpe look``, as the command line has them.

    Args:
        picture: The picture that is looked at; None with ``images`` alone.
        images: A folder of pictures, over which positional artefacts are measured.
        limit: Only that many of them, a seeded choice.
        model: As timm registers it.
        checkpoint: File with weights.
        pretrained: The published weights.
        model_kwargs: For ``timm.create_model``.
        trained_size: Pixels, where weights were trained at another size than the model is built for.
        size: ``224``, ``512x384`` (height x width, pixels) or factors of the trained size, ``2x``; the first is the one
            by which colours are made and with which others are compared.
        policy: Resolution policies; ``default`` is as built.
        layers: Numbers of blocks (stages of a pyramid); none for all.
        token: ``cls``, or the place of a patch as ``ROW,COLUMN``, shares of the height and width.
        seed: Of the choice of pictures and patches, and of random weights.
        device: Name of the device; None for the GPU where there is one.
        out: Directory of the results.
    """

    picture: Path | None = None
    images: Path | None = None
    limit: int = 64
    model: str = ""
    checkpoint: Path | None = None
    pretrained: bool = False
    model_kwargs: dict[str, object] = field(default_factory=dict)
    trained_size: str | None = None
    size: list[str] = field(default_factory=lambda: ["1x", "2x"])
    policy: list[str] = field(default_factory=lambda: ["default"])
    layers: list[int] = field(default_factory=list)
    token: str = "0.5,0.5"
    seed: int = 0
    device: str | None = None
    out: Path = Path("work_dirs/look")
