"""`visionpe look`: builds the model, looks, and writes pictures, numbers and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor, nn

from visionpe.looking.options import LookOptions
from visionpe.looking.page import write_page
from visionpe.looking.pictures import draw_attention, draw_features, draw_reach
from visionpe.looking.place_plot import draw_curves, draw_means
from visionpe.looking.places import list_pictures, measure_places, read_pictures
from visionpe.looking.views import Normalisation, View, look
from visionpe.policy.sizes import as_size
from visionpe.scaling.models import ModelEntry, from_names
from visionpe.scaling.open_images import check_outside
from visionpe.scaling.sizes import Size, parse_resolution, resolve
from visionpe.utils.device import default_device, open_device
from visionpe.utils.errors import InputError, check_counts, check_seed, first_line
from visionpe.utils.files import write_atomic
from visionpe.utils.progress import SteadyProgress
from visionpe.viewing.features import ColourBasis

BATCH = 16


def read_token(text: str) -> str | tuple[float, float]:
    """``cls``, or ``ROW,COLUMN`` as shares of the height and width.

    Raises:
        InputError: If it is neither.
    """
    if text == "cls":
        return text
    try:
        row, column = map(float, text.split(","))
    except ValueError:
        row = column = -1.0
    if not (0 <= row <= 1 and 0 <= column <= 1):
        raise InputError(f"--token {text}: allowed: cls, or ROW,COLUMN as shares of the height and width, 0.5,0.5")
    return row, column


def _entry(options: LookOptions) -> ModelEntry:
    if not options.model:
        raise InputError("--model: none given; allowed: any timm model")
    checkpoint = [str(options.checkpoint)] if options.checkpoint else []
    (entry,) = from_names(
        [options.model], checkpoint, dict(options.model_kwargs), pretrained=options.pretrained, seed=options.seed
    )
    if options.trained_size is not None:
        try:
            entry.trained = as_size(options.trained_size, "--trained-size")
        except ValueError as error:
            raise InputError(str(error)) from None
    return entry


def _settings(options: LookOptions, entry: ModelEntry) -> list[tuple[Size, str]]:
    """Sizes and policies in the order given, sizes first."""
    info = entry.info
    asked = [parse_resolution(text, "--size") for text in options.size]
    given = [resolve(each, info.trained, info.patch, entry.name, "--size") for each in asked]
    return list(dict.fromkeys((size, policy) for size in given for policy in options.policy))


def _reach(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Distance as a share of the longer side, and entropy in nats: ``(layers, heads)``, NaN where a layer has fewer."""
    most = max(layer.heads for layer in view.attention)
    both = np.full((2, len(view.attention), most), np.nan)
    for number, layer in enumerate(view.attention):
        if layer.weights.distribution:
            entropy, distance = layer.spread()
            both[0, number, : layer.heads] = distance.cpu() / max(layer.grid.finer.size)
            both[1, number, : layer.heads] = entropy.cpu()
    return both[0], both[1]


def _numbers(view: View, bases: list[ColourBasis]) -> dict[str, Any]:
    """What is told of a view in numbers, ready for JSON."""
    told: dict[str, Any] = {"height": view.size[0], "width": view.size[1], "policy": view.policy}
    if view.attention:
        reach, entropy = _reach(view)
        told["attention"] = {
            "distance": [[None if np.isnan(x) else round(float(x), 5) for x in layer] for layer in reach],
            "entropy": [[None if np.isnan(x) else round(float(x), 5) for x in layer] for layer in entropy],
        }
    else:
        told["attention"] = None
        told["unseen"] = view.unseen
    told["features"] = [
        {"layer": number, "rows": maps.shape[2], "columns": maps.shape[3], "channels": maps.shape[1]}
        for number, maps in zip(view.layers, view.maps)
    ]
    told["colours_explain"] = [[round(float(x), 4) for x in basis.explained] for basis in bases]
    return told


def _write_json(path: Path, data: Any) -> None:
    write_atomic(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def _table(rows: list[Any], console: Console) -> None:
    """The last layer of each size and policy, and what the pixels tell."""
    from rich.table import Table

    last = [row for row in rows if row.layer == rows[-1].layer or row.layer == "pixels"]
    table = Table(
        "size", "policy", "layer", "variance by place", "row", "column", "row, moved", "same place", "outliers"
    )
    for row in last:
        shares = (row.share, row.row, row.column, row.moved_row, row.same_place, row.outliers)
        size = f"{row.height}x{row.width}"
        table.add_row(size, row.policy, row.layer, *(f"{100 * share:.1f}%" for share in shares))
    console.print(table)


@dataclass(frozen=True)
class Looking:
    """A model that is looked at.

    Args:
        options: As they were given.
        entry: The model, as it is named.
        model: The same, built, in evaluation mode on the device.
        normalisation: What it wants to be given.
        settings: Sizes and policies.
        console: Where it is said what was written.
    """

    options: LookOptions
    entry: ModelEntry
    model: nn.Module
    normalisation: Normalisation
    settings: list[tuple[Size, str]]
    console: Console

    @property
    def about(self) -> dict[str, Any]:
        """Where numbers come from, ready for JSON."""
        options = self.options
        asked = {"size": options.size, "policy": options.policy, "token": options.token, "seed": options.seed}
        return {**self.entry.key(), **asked}

    def read(self, files: Sequence[Path], size: Size) -> Tensor:
        """Pictures ``(n, channels, height, width)`` of 0 to 1, where the model is."""
        device = next(self.model.parameters()).device
        return read_pictures(files, size, self.entry.info.channels).to(device)

    def views(self, file: Path) -> list[View]:
        """The middle of a picture, in the shape of each size, at all sizes and under all policies.

        Raises:
            InputError: If a policy or a layer does not apply.
        """
        views, pictures = [], {size: self.read([file], size) for size, _ in self.settings}
        for size, policy in self.settings:
            try:
                views.append(look(self.model, pictures[size], self.normalisation, policy, self.options.layers))
            except ValueError as error:
                what = f"--model {self.options.model} at {size[0]}x{size[1]}, --policy {policy}"
                raise InputError(f"{what}: {first_line(error)}") from None
        return views

    def at_picture(self, file: Path, token: str | tuple[float, float]) -> None:
        """Look at one picture, and write what was seen.

        Raises:
            InputError: See :meth:`views`; if ``token`` is a class token and there is none.
        """
        views = self.views(file)
        if token == "cls" and any(view.attention and not view.attention[0].grid.prefix for view in views):
            raise InputError(f"--token cls: {self.options.model} has no class token; allowed: ROW,COLUMN, as 0.5,0.5")
        bases, out = [ColourBasis.fit(maps) for maps in views[0].maps], self.options.out
        written = ["look.html", "look.json", "features.png"]
        draw_features(out / "features.png", views, bases)
        if draw_attention(out / "attention.png", views, token):
            written.append("attention.png")
        if seen := [view for view in views if view.attention]:
            draw_reach(out / "reach.png", seen, [_reach(view)[0] for view in seen])
            written.append("reach.png")
        _write_json(out / "look.json", self.about | {"views": [_numbers(view, bases) for view in views]})
        write_page(out / "look.html", f"{self.options.model} on {file.name}", views, bases, self.about)
        for view in views:
            if view.unseen:
                self.console.print(f"note: {view.name}: no attention is shown: {view.unseen}")
        self._say(written)

    def at_folder(self, folder: Path) -> None:
        """Measure positional artefacts over a folder, and write what was found.

        Raises:
            InputError: If pictures, policies or layers do not fit.
        """
        files = list_pictures(folder, self.options.limit, self.options.seed)
        with SteadyProgress(console=self.console) as progress:
            work = sum(len(files) * size[0] * size[1] for size, _ in self.settings)
            task = progress.add_task("pictures", total=work)

            def batches(size: Size) -> Iterator[Tensor]:
                for start in range(0, len(files), BATCH):
                    some = files[start : start + BATCH]
                    yield self.read(some, size)
                    progress.advance(task, len(some) * size[0] * size[1])

            asked = self.settings, self.options.layers
            try:
                rows, means = measure_places(self.model, batches, self.normalisation, *asked, seed=self.options.seed)
            except InputError:
                raise
            except ValueError as error:
                raise InputError(f"--model {self.options.model}: {first_line(error)}") from None
        out = self.options.out
        draw_curves(out / "places.png", rows)
        draw_means(out / "means.png", means)
        about = self.about | {"images": str(folder), "pictures": len(files)}
        _write_json(out / "places.json", about | {"rows": [row.as_dict() for row in rows]})
        _table(rows, self.console)
        self._say(["places.json", "places.png", "means.png"])

    def _say(self, names: Sequence[str]) -> None:
        self.console.print(f"written: {self.options.out}/{', '.join(names)}", soft_wrap=True)


def run(options: LookOptions, console: Console) -> None:
    """Look, and write what was seen.

    Raises:
        InputError: If options, model or pictures do not fit.
    """
    check_counts(options, "limit")
    check_seed(options.seed)
    if options.picture is None and options.images is None:
        raise InputError("nothing to look at; allowed: a picture, or --images with a folder of them")
    token = read_token(options.token)
    if options.images is not None:
        check_outside(options.out, "--images", str(options.images))
    entry = _entry(options)
    settings = _settings(options, entry)
    model = entry.build().to(open_device(options.device) if options.device else default_device())
    if entry.is_random:
        console.print(f"note: {options.model} has random weights; --checkpoint or --pretrained gives others")
    if entry.why_not_adapted:
        console.print(f"note: {options.model} runs as timm built it: {entry.why_not_adapted}")
    spec = entry.view("", options.seed)
    normalisation = Normalisation(*(tuple(float(x) / 255 for x in each) for each in (spec.mean, spec.std)))
    options.out.mkdir(parents=True, exist_ok=True)
    looking = Looking(options, entry, model, normalisation, settings, console)
    if options.picture is not None:
        looking.at_picture(options.picture, token)
    if options.images is not None:
        looking.at_folder(options.images)
