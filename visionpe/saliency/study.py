"""The saliency study: a published model's maps measured at every size and under every policy that applies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from visionpe import policies, set_policy
from visionpe.saliency import pictures, results
from visionpe.saliency.model import FINE_TUNED, SaliencyModel, load_saliency_model, published_file, swapped_backbone
from visionpe.saliency.options import SaliencyOptions
from visionpe.saliency.rows import LABEL, Measurer
from visionpe.scaling.options import ALL, AUTO, DEFAULT, DOWNSCALE
from visionpe.scaling.regret import regrets
from visionpe.scaling.report import provenance
from visionpe.scaling.sizes import Size, parse_resolution, resolve_all
from visionpe.scaling.statistics import bootstrap
from visionpe.scaling.sweep import FAILED, OK
from visionpe.utils.device import default_device, open_device
from visionpe.utils.errors import IncompleteError, InputError, check_counts, check_seed, first_line
from visionpe.utils.locks import locked
from visionpe.utils.progress import SteadyProgress

Row = dict[str, Any]


def _check(options: SaliencyOptions) -> None:
    check_counts(options, "images", "auto_images")
    check_seed(options.seed)
    if (options.objects is None) != (options.backgrounds is None):
        raise InputError("--objects and --backgrounds: one of them given; allowed: both, or none to draw maps alone")
    if (options.pos_encoding is None) != (options.backbone is None):
        raise InputError("--pos-encoding and --backbone: one of them given; allowed: both, or none for the table")


def _model(options: SaliencyOptions, file: Path) -> SaliencyModel:
    """What is measured."""
    model = load_saliency_model(file)
    if options.pos_encoding is not None and options.backbone is not None:
        swapped = swapped_backbone(options.pos_encoding, options.backbone)
        if swapped.num_features != model.backbone.num_features:
            raise InputError(
                f"--checkpoint {file}: its decoder takes {model.backbone.num_features} channels; allowed with "
                f"--pos-encoding: {swapped.num_features}"
            )
        model.backbone = swapped.eval()
    return model


def _names(model: SaliencyModel, asked: Sequence[str]) -> list[str]:
    """Policies in the order of the table; the one in force is the default, and is not measured twice."""
    known = policies(model)
    for name in asked:
        if name not in (DEFAULT, ALL, AUTO, DOWNSCALE):
            try:
                set_policy(model, name)
            except ValueError as error:
                raise InputError(f"--policy {name}: {first_line(error)}") from None
    set_policy(model, DEFAULT)
    named = [name for name in asked if name not in (DEFAULT, ALL, AUTO, DOWNSCALE, known[0])]
    every = known[1:] if ALL in asked else []
    return list(dict.fromkeys([DEFAULT, DOWNSCALE, *every, *named, *([AUTO] if AUTO in asked else [])]))


def _paired(row: Row, other: Row | None, seed: int) -> tuple[float, float, float] | None:
    """Points of IoU above another row, with their interval, on the pictures that both have: the first ones."""
    if other is None or other["status"] != OK or not (n := min(len(row["ious"]), len(other["ious"]))):
        return None
    difference = np.array(row["ious"][:n]) - np.array(other["ious"][:n])
    return 100 * float(difference.mean()), *bootstrap([difference], seed=seed)


def summarise(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """Rows with 95% bootstrap intervals over pictures, and compared with others on the same pictures.

    Args:
        rows: From the study.
        seed: Of the bootstrap.

    Returns:
        The rows with ``iou_low`` and ``iou_high``; but for ``downscale`` itself ``versus_downscale``, points over it at
        the same size, with ``versus_low`` and ``versus_high``, and ``loses``: that interval is below zero. Where the
        size of fine-tuning was measured ``gain``, points above the default policy there, with ``gain_low`` and
        ``gain_high``: sizes at which fewer pictures were measured can be compared by it.
    """
    of = {(row["policy"], row["height"], row["width"]): row for row in rows}
    lines = []
    for row in rows:
        line = dict(row)
        if row["status"] == OK:
            line["iou_low"], line["iou_high"] = bootstrap([np.array(row["ious"])], seed=seed)
            if gain := _paired(row, of.get((DEFAULT, *FINE_TUNED)), seed):
                line |= zip(("gain", "gain_low", "gain_high"), gain)
            versus = _paired(row, of.get((DOWNSCALE, row["height"], row["width"])), seed)
            if versus and row["policy"] != DOWNSCALE:
                line |= zip(("versus_downscale", "versus_low", "versus_high"), versus)
                line["loses"] = versus[2] < 0
        lines.append(line)
    return lines


def run(options: SaliencyOptions, console: Console) -> list[Row]:
    """Measure, draw, and write the results below ``options.out``.

    Args:
        options: What to measure, and how.
        console: For tables, notes and the progress bar.

    Returns:
        The rows, as :func:`summarise` gives them; none without ``options.objects``.

    Raises:
        InputError: If an option cannot be used, or the weights are not installed.
        IncompleteError: If rows failed; everything was written.
    """
    _check(options)
    device = open_device(options.device or default_device())
    resolutions = [parse_resolution(text) for text in options.resolutions]
    with locked(options.out, "saliency study"):
        file = options.checkpoint or published_file()
        model = _model(options, file).to(device)
        sizes = resolve_all(resolutions, FINE_TUNED, model.backbone.patch_embed.patch_size, LABEL)
        lines: list[Row] = []
        if options.objects is not None:
            lines = _sweep(options, model, file, sizes, device, console)
        pictures.draw_photographs(options.out / "maps.png", model, options.picture, device=device)
        console.print(f"written: {options.out}/maps.png", highlight=False)
    failed = [line for line in lines if line["status"] == FAILED]
    if failed:
        raise IncompleteError(f"{len(failed)} of {len(lines)} rows failed; the same command tries them again")
    return lines


def _sweep(
    options: SaliencyOptions,
    model: SaliencyModel,
    file: Path,
    sizes: Sequence[Size],
    device: torch.device,
    console: Console,
) -> list[Row]:
    source = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    if options.backbone is not None:
        own = hashlib.sha256(options.backbone.read_bytes() + str(options.pos_encoding).encode()).hexdigest()
        source = {"sha256": f"{source['sha256']} with {own}"}
    names = _names(model, options.policy)
    measurer = Measurer(options, model, source["sha256"], device)
    tasks = [(name, size) for size in sizes for name in names]
    rows = []
    with SteadyProgress(console=console, transient=True) as progress:
        costs = [measurer.count(size) * size[0] * size[1] for _, size in tasks]
        bar = progress.add_task("measuring", total=sum(costs))
        for (name, size), cost in zip(tasks, costs):
            progress.update(bar, description=f"{name} at {size[0]}x{size[1]}")
            rows.append(measurer.row(name, size))
            progress.advance(bar, cost)
    lines = summarise(rows, options.seed)
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    written = provenance(arguments, device, []) | source
    # At the size of fine-tuning nothing is chosen.
    choices = regrets([line for line in lines if (line["height"], line["width"]) != FINE_TUNED], metric="iou")
    results.write(options.out, lines, choices, written)
    results.show(lines, choices, console)
    pictures.draw_curves(options.out / "resolution.png", lines)
    pictures.draw_cutouts(options.out / "cutouts.png", model, measurer.shown[:4], device=device)
    return lines
