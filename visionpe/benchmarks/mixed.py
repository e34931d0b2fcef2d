"""What do images of several sizes in one batch cost? Padded, packed and one by one, against all resized to one size."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console

import visionpe.backbones  # registers the models with timm
from visionpe.benchmarks.cases import Case
from visionpe.benchmarks.report import Row, groups, table, write
from visionpe.benchmarks.timing import WARM_UPS, measure
from visionpe.utils.device import device_name, open_device
from visionpe.utils.errors import InputError, check_counts
from visionpe.utils.progress import SteadyProgress
from visionpe.utils.resizing import native_size

# Heights and widths of 64 photographs of Caltech-101, drawn at random.
PHOTOGRAPHS = [
    *((160, 291), (160, 343), (160, 289), (160, 229), (160, 237), (170, 160), (160, 244), (160, 183), (164, 160)),
    *((160, 407), (160, 167), (111, 300), (183, 160), (160, 242), (284, 160), (160, 244), (160, 384), (213, 160)),
    *((178, 160), (160, 170), (160, 179), (149, 300), (128, 192), (139, 402), (128, 192), (198, 160), (160, 242)),
    *((160, 241), (160, 244), (160, 213), (150, 265), (160, 213), (160, 162), (197, 160), (160, 160), (221, 160)),
    *((214, 160), (160, 191), (160, 249), (160, 187), (208, 160), (156, 261), (160, 241), (160, 215), (160, 209)),
    *((128, 192), (160, 241), (194, 160), (160, 244), (213, 160), (151, 397), (128, 192), (160, 251), (160, 182)),
    *((160, 169), (219, 160), (160, 300), (144, 300), (201, 160), (173, 160), (160, 379), (173, 160), (144, 398)),
    (212, 160),
]


@torch.no_grad()
def cases(name: str, pixels: int, device: torch.device, *, longest: bool) -> list[Case]:
    """A model on the photographs.

    Args:
        name: Of a ViT, timm's too, which is adapted.
        pixels: Side of the square to which all are resized; others keep their aspect ratio within its tokens.
        device: Where.
        longest: Photographs keep their size in pixels instead, scaled by one factor: tokens differ by more.

    Raises:
        InputError: If it is no such model.
    """
    torch.manual_seed(0)
    try:
        model: Any = timm.create_model(name, img_size=pixels, num_classes=0)  # a new classifier says nothing
        model = (model if hasattr(model, "pos_encoding") else visionpe.adapt(model)).eval().to(device)
    except Exception as error:
        raise InputError(f"--models {name}: {error}; allowed: ViTs") from None
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):
            parameter.fill_(1)  # blocks that add next to nothing say nothing either
    patch = model.patch_embed.patch_size
    if longest:
        largest = max(height * width for height, width in PHOTOGRAPHS)
        shares = [height * width / largest for height, width in PHOTOGRAPHS]
        budgets = [(pixels, max(patch[1], int(pixels * share))) for share in shares]
    else:
        budgets = [(pixels, pixels)] * len(PHOTOGRAPHS)
    sizes = [native_size(own, budget, patch) for own, budget in zip(PHOTOGRAPHS, budgets)]
    images = [torch.randn(3, *size, device=device) for size in sizes]
    square = torch.randn(len(images), 3, pixels, pixels, device=device)
    run = torch.inference_mode()
    alone = torch.cat([model(image[None]) for image in images])

    def difference(batching: str) -> float:
        return float((model(images, batching=batching) - alone).abs().max())

    kind = f"{name}, {'sizes' if longest else 'shapes'} differ"
    return [
        Case("all resized to one size", kind, run(lambda: model(square))),
        Case("padded", kind, run(lambda: model(images, batching="pad")), difference=difference("pad")),
        Case("packed", kind, run(lambda: model(images, batching="pack")), difference=difference("pack")),
        Case("one by one", kind, run(lambda: [model(image[None]) for image in images])),
    ]


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure, show and write.

    Args:
        args: Of ``visionpe benchmark mixed``, see :mod:`visionpe.cli.benchmark`.
        console: For tables and the progress bar.

    Raises:
        InputError: If an argument cannot be used.
    """
    check_counts(args, "pixels", "repeats", "threads")
    if args.threads:
        torch.set_num_threads(args.threads)
    device, rows = open_device(args.device), []
    with SteadyProgress(console=console) as progress:
        bar = progress.add_task("rounds", total=2 * len(args.models) * (args.repeats + WARM_UPS))
        for name in args.models:
            for longest in (False, True):
                found = measure(
                    cases(name, args.pixels, device, longest=longest),
                    device,
                    args.repeats,
                    lambda: progress.advance(bar),
                )
                place = {
                    "level": found[0]["of"],
                    "pass": "forward",
                    "pixels": args.pixels,
                    "tokens": args.pixels**2 // 256,
                }
                rows += [{**place, **row} for row in found]
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    about = {"device": device_name(device), "python": platform.python_version(), "torch": torch.__version__}
    about |= {"timm": timm.__version__, "visionpe": visionpe.__version__}
    settings |= {"threads": torch.get_num_threads(), "batch_size": len(PHOTOGRAPHS)}
    notes = [f"Medians of {args.repeats} interleaved rounds; differences of features are from the images one by one."]
    write(args.out, args.name, rows, settings=settings, about=about, notes=notes)
    for title, own in groups(rows, len(PHOTOGRAPHS)).items():
        console.print(table(own, title))
    return rows
