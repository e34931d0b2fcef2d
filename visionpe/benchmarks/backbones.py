"""How fast are the backbones? Each against other code with the same weights, in one run."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from torch import nn

import visionpe.backbones  # registers the models with timm
from visionpe.backbones.adapt.adapted import Adapted
from visionpe.backbones.adapt.catalogue import look_up
from visionpe.benchmarks.cases import Case
from visionpe.benchmarks.cswin_plain import Plain
from visionpe.benchmarks.report import Row, groups, table, write
from visionpe.benchmarks.timing import WARM_UPS, measure
from visionpe.utils.device import device_name, open_device
from visionpe.utils.errors import InputError, check_counts
from visionpe.utils.progress import SteadyProgress

Pair = tuple[nn.Module, str, nn.Module]
# How timm's model differs from ViTDet.
SAM = {"num_classes": 1000, "fc_norm": False, "norm_eps": 1e-5}


def _swin(pixels: int) -> Pair:
    peer = timm.create_model("swin_tiny_patch4_window7_224", img_size=pixels)
    ours = timm.create_model("swin_t", img_size=pixels)
    return ours, "timm swin_tiny", peer


def _vitdet(pixels: int) -> Pair:
    peer = timm.create_model("samvit_base_patch16_224", img_size=pixels)
    ours = timm.create_model("decomposed_vitdet_b", img_size=pixels, **SAM)
    return ours, "timm samvit_base", peer


def _cswin(pixels: int) -> Pair:
    ours = timm.create_model("cswin_t", img_size=224)
    return ours, "plain cswin_t", Plain(ours)


def _cpvt(pixels: int) -> Pair:
    peer = timm.create_model("twins_pcpvt_small")
    return timm.create_model("cpvt_v2_s", img_size=pixels), "timm twins_pcpvt_small", peer


PAIRS: dict[str, Callable[[int], Pair]] = {
    "swin_t": _swin,
    "vitdet_b": _vitdet,
    "cswin_t": _cswin,
    "cpvt_v2_s": _cpvt,
}


def _adapted(name: str, pixels: int) -> Pair:
    """A model of timm's, and the same adapted."""
    try:
        peer = timm.create_model(name, img_size=pixels)
    except TypeError:  # of one that has no size
        peer = timm.create_model(name)
    return visionpe.adapt(peer), f"timm {name}", peer


@torch.no_grad()
def cases(name: str, pixels: int, batch: int, device: torch.device) -> list[Case]:
    """A backbone and its peer with the same weights, and how far their outputs differ."""
    torch.manual_seed(0)
    ours, other, peer = PAIRS[name](pixels) if name in PAIRS else _adapted(name, pixels)
    adapted = isinstance(ours, Adapted)
    for key, parameter in peer.named_parameters():
        if "rel_pos" in key or "relative_position" in key:
            parameter.normal_(std=0.1)
    if adapted:
        ours = visionpe.adapt(peer)  # with those positions
    elif not isinstance(peer, Plain):
        ours.load_state_dict(peer.state_dict())
    ours, peer = ours.eval().to(device), peer.eval().to(device)
    x = torch.randn(batch, 3, pixels, pixels, device=device)
    run = torch.inference_mode()
    difference = (ours(x) - peer(x)).abs().max().item()
    return [
        Case(f"adapted {name}" if adapted else name, name, run(lambda: ours(x))),
        Case(other, name, run(lambda: peer(x)), peer=True, difference=difference),
    ]


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure, show and write.

    Args:
        args: Of ``visionpe benchmark backbones``, see :mod:`visionpe.cli.benchmark`.
        console: For tables and the progress bar.

    Raises:
        InputError: If an argument cannot be used.
    """
    for pixels in args.resolutions:
        if pixels < 32 or pixels % 32:
            raise InputError(f"--resolutions {pixels}: must be a positive multiple of 32")
    check_counts(args, "batch_size", "repeats", "threads")
    for name in args.adapted:
        if not timm.is_model(name.split(".")[0]):
            raise InputError(f"--adapted {name}: timm knows no such model; see `visionpe list timm`")
        if not (entry := look_up(name)).adaptable:
            raise InputError(f"--adapted {name}: {entry.why_not}")
    if args.threads:
        torch.set_num_threads(args.threads)
    device, rows = open_device(args.device), []
    with SteadyProgress(console=console) as progress:
        names = args.adapted or args.backbones
        total = len(names) * len(args.resolutions) * (args.repeats + WARM_UPS)
        bar = progress.add_task("rounds", total=total)
        for name in names:
            for pixels in args.resolutions:
                found = measure(
                    cases(name, pixels, args.batch_size, device), device, args.repeats, lambda: progress.advance(bar)
                )
                place: dict[str, Any] = {
                    "level": name,
                    "pass": "forward",
                    "pixels": pixels,
                    "tokens": (pixels // 16) ** 2,
                }
                rows += [{**place, **row} for row in found]
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    about = {"device": device_name(device), "python": platform.python_version(), "torch": torch.__version__}
    about |= {"timm": timm.__version__, "visionpe": visionpe.__version__}
    settings["threads"] = torch.get_num_threads()
    notes = [f"Medians of {args.repeats} interleaved rounds; peak memory is of one call."]
    write(args.out, args.name, rows, settings=settings, about=about, notes=notes)
    for title, own in groups(rows, args.batch_size).items():
        console.print(table(own, title))
    return rows
