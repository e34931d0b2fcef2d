"""Which encodings work in which backbones: every cell is built and run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console

import visionpe.backbones  # registers the models with timm
from visionpe.sparse import Voxels
from visionpe.utils.errors import InputError
from visionpe.utils.files import write_atomic
from visionpe.utils.progress import SteadyProgress

# One model of each family, cut short; no window, stripe or patch divides the image.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("none_vit_ti", {"depth": 2, "global_pool": "avg"}),
    "ViTDet": ("vitdet_b", {"depth": 2, "embed_dim": 192, "num_heads": 3, "global_blocks": (1,), "window_size": 3}),
    "Swin": ("swin_t", {"depths": (2, 1, 1, 1), "embed_dim": 48, "num_heads": (3, 3, 6, 12)}),
    "CSWin": ("cswin_t", {"depths": (1, 1, 2, 1)}),
    "CrossFormer": ("crossformer_t", {"depths": (2, 1, 2, 1), "embed_dim": 48, "num_heads": (3, 3, 6, 12)}),
    "RMT": ("rmt_t", {"depths": (1, 1, 2, 1), "embed_dim": (32, 64, 64, 64), "num_heads": (2, 4, 4, 4)}),
    "CPVT": (
        "cpvt_v2_s",
        {"depths": (1, 1, 2, 1), "embed_dim": (48, 48, 96, 96), "num_heads": (2, 2, 4, 4)},
    ),
    "MiT": ("mit_b0", {"depths": (1, 1, 2, 1), "embed_dim": (48, 48, 96, 96), "num_heads": (2, 2, 4, 4)}),
    "CvT": ("cvt_13", {"depths": (1, 1, 2), "embed_dim": (48, 48, 96), "num_heads": (2, 2, 4), "class_token": False}),
    "Hiera": ("hiera_t", {"stages": (1, 1, 2, 1), "embed_dim": 48, "num_heads": 1}),
    "MViTv2": ("mvitv2_t", {"depths": (1, 1, 2, 1), "embed_dim": 48}),
    "Twins": (
        "twins_svt_s",
        {"depths": (1, 1, 2, 1), "embed_dims": (48, 48, 96, 96), "num_heads": (2, 2, 4, 4), "sr_ratios": (8, 4, 2, 1)},
    ),
    "LeViT": ("none_levit_128s", {"depth": (1, 1, 1)}),
    "Swin3D": ("swin3d_s", {"depths": (2, 1), "embed_dims": (48, 96), "num_heads": (6, 6), "window_size": (5, 7)}),
    "PTv3": (
        "ptv3_b",
        {"depths": (2, 1), "embed_dims": (48, 96), "num_heads": (2, 4), "patch_size": 16, "strides": (2,)},
    ),
}
OF_VOXELS = ("Swin3D", "PTv3")
SIZE = (80, 112)
MARKS = ("<!-- encodings x backbones -->", "<!-- end -->")
FITS = "yes"
# Of an encoding, in the reason why it was refused: the same reason serves several.
NAMES = re.compile(r"pos_encoding='[^']*'(?:: '[^']*')?(?:, as it is built,)? ")


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images, and the same upside down."""
    image = torch.randn(2, 3, *SIZE)
    return image, image.flip(2)


def voxels() -> tuple[Voxels, Voxels]:
    """Two clouds of voxels, and the same with other features."""
    coords = torch.cat([torch.cat((torch.full((60, 1), i), torch.randperm(9**3)[:60, None]), dim=1) for i in range(2)])
    cells = torch.stack([coords[:, 1].div(9**axis, rounding_mode="floor") % 9 for axis in range(3)], dim=1)
    signals = torch.cat((cells + torch.rand(120, 3), torch.rand(120, 3) * 2 - 1), dim=1)
    cloud = torch.cat((coords[:, :1], cells), dim=1)
    features = torch.randn(120, 6)
    return Voxels(features, cloud, signals), Voxels(features.flip(1), cloud, signals)


def check(encoding: str, family: str) -> str:
    """``yes`` where a backbone with this encoding runs and learns, else the reason why it was refused.

    Args:
        encoding: Name of the encoding.
        family: Key of ``FAMILIES``.

    Raises:
        RuntimeError: If it is built and then something is wrong: a failure of ours, not a refusal.
    """
    name, options = FAMILIES[family]
    torch.manual_seed(0)
    try:
        model = timm.create_model(name, pos_encoding=encoding, num_classes=7, **options)
    except ValueError as error:
        return str(error)
    with torch.no_grad():
        for parameter in model.parameters():  # what starts at zero would hide what comes after it
            if not parameter.any():
                parameter.normal_(std=0.1)
    plain, turned = voxels() if family in OF_VOXELS else images()
    logits = model(plain)
    logits.square().sum().backward()
    if not logits.isfinite().all():
        raise RuntimeError(f"{encoding} in {family}: the output is not finite")
    named = [(n, p) for n, p in model.named_parameters() if "pos_encoding" in n]
    # That of a last bias, which adds the same to all logits, may be zero, and so may that of FIRE's threshold, which
    # counts where a map is no larger.
    idle = [n for n, p in named if p.grad is None or not (p.grad.any() or n.endswith(("bias", "threshold")))]
    if idle:
        raise RuntimeError(f"{encoding} in {family}: no gradient reaches {', '.join(idle[:3])}")
    model.eval()
    with torch.no_grad():
        after, before = model(turned), model(plain)
    if not (after.isfinite().all() and (after - before).abs().max() > 0):
        raise RuntimeError(f"{encoding} in {family}: the output does not depend on the input")
    return FITS


def rows(families: Sequence[str] = tuple(FAMILIES)) -> dict[str, dict[str, str]]:
    """Encoding -> family -> what :func:`check` says."""
    names = visionpe.list_encodings()
    cells = [(name, family) for name in names for family in families]
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    with SteadyProgress(console=Console(stderr=True, markup=False), transient=True) as progress:
        for name, family in progress.track(cells, description="cells"):
            found[name][family] = check(name, family)
    return found


def markdown(found: dict[str, dict[str, str]]) -> str:
    """The table, with the reasons of the refusals below it."""
    families = list(next(iter(found.values())))
    lines = ["| | " + " | ".join(families) + " |", "|---" * (len(families) + 1) + "|"]
    notes: dict[str, None] = {}  # in order; one reason may serve several encodings
    for name, cells in found.items():
        marks = []
        for cell in cells.values():
            note = NAMES.sub("", cell).partition(";")[0]
            if cell != FITS:
                notes.setdefault(note)
            marks.append("✓" if cell == FITS else f"no ({list(notes).index(note) + 1})")
        lines.append(f"| `{name}` | " + " | ".join(marks) + " |")
    return "\n".join([*lines, "", *(f"{i}. {note}" for i, note in enumerate(notes, start=1))]).rstrip()


def write(file: Path, table: str) -> None:
    """Replace the table between the marks of a file.

    Raises:
        InputError: If it does not hold both marks once.
    """
    text = file.read_text()
    if any(text.count(mark) != 1 for mark in MARKS):
        raise InputError(f"--write {file}: it must hold {MARKS[0]!r} and {MARKS[1]!r} once each")
    before, rest = text.split(MARKS[0])
    write_atomic(file, f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
