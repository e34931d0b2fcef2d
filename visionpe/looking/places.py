"""What features tell of the place they stand at, over a folder of pictures, by layer, size and policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from visionpe import set_policy
from visionpe.looking.views import Normalisation
from visionpe.scaling.options import DEFAULT
from visionpe.scaling.sizes import Size
from visionpe.utils.errors import InputError
from visionpe.utils.pictures import open_picture
from visionpe.utils.resizing import resize_images
from visionpe.viewing.features import feature_maps, normed
from visionpe.viewing.positions import PlaceProbe, PositionRecord

PIXELS = "pixels"
FILES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class PlaceRow:
    """One layer at one size under one policy.

    Attributes:
        height, width: Pixels.
        policy: A resolution policy.
        layer: The number of a block; ``pixels`` for the mean colours of the patches, which is what the pictures tell.
        images: Pictures.
        share: Of the variance that goes with the place alone (``PositionRecord.share``).
        row, column: Mean error of a linear probe that reads them, as shares of the side; 0.25 knows nothing.
        moved_row, moved_column: The same of the probe that was fitted at the first size, under the first policy.
        same_place, chance: Shares of patches whose nearest neighbour in other pictures stands at the same place.
        outliers, outlier_norm: Shares of patches with far longer features, and of the norms that they hold.
    """

    height: int
    width: int
    policy: str
    layer: str
    images: int
    share: float
    row: float
    column: float
    moved_row: float
    moved_column: float
    same_place: float
    chance: float
    outliers: float
    outlier_norm: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def list_pictures(folder: Path, limit: int, seed: int) -> list[Path]:
    """A seeded choice of the pictures below a folder, in the order of their names.

    Raises:
        InputError: If there are fewer than four.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FILES and path.is_file())
    if len(files) < 4:
        raise InputError(f"--images {folder}: {len(files)} pictures below it; allowed: a folder with four or more")
    chosen = np.random.default_rng(seed).permutation(len(files))[:limit]
    return [files[i] for i in sorted(chosen)]


def read_pictures(files: Sequence[Path], size: Size, channels: int) -> Tensor:
    """Pictures as ``(n, channels, height, width)`` of 0 to 1: of each the middle, in the shape of ``size``."""
    read = []
    for file in files:
        picture = open_picture(file).convert("L" if channels == 1 else "RGB")
        pixels = torch.from_numpy(np.array(picture)).float().div(255)
        pixels = pixels[None] if channels == 1 else pixels.movedim(-1, 0)
        scale = min(pixels.shape[1] / size[0], pixels.shape[2] / size[1])
        height, width = (max(1, min(round(n * scale), most)) for n, most in zip(size, pixels.shape[1:]))
        top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
        read.append(resize_images(pixels[None, :, top : top + height, left : left + width], size).clamp(0, 1))
    return torch.cat(read)


def _record(
    model: nn.Module, batches: Iterable[Tensor], normalisation: Normalisation, layers: Sequence[int], seed: int
) -> dict[str, PositionRecord]:
    """Each layer's features over the pictures, and the pixels'."""
    records: dict[str, PositionRecord] = {}
    for pictures in batches:
        raw = feature_maps(model, normalisation(pictures), list(layers) or None, norm=False)
        names = [str(number) for number in (layers or range(len(raw)))]
        finest = max(((each.shape[2], each.shape[3]) for each in raw), key=lambda size: size[0] * size[1])
        pixels = torch.nn.functional.adaptive_avg_pool2d(pictures, finest)
        for name, maps in [(PIXELS, pixels), *zip(names, raw)]:
            seen = records.setdefault(name, PositionRecord(seed=seed))
            seen.add(maps if name == PIXELS else normed(model, maps), raw=maps)
    return records


def measure_places(
    model: nn.Module,
    pictures: Callable[[Size], Iterable[Tensor]],
    normalisation: Normalisation,
    settings: Sequence[tuple[Size, str]],
    layers: Sequence[int] = (),
    *,
    seed: int = 0,
) -> tuple[list[PlaceRow], dict[tuple[Size, str], dict[str, Tensor]]]:
    """Measure a model at several sizes and under several policies.

    Args:
        model: In evaluation mode; its policy is changed.
        pictures: Gives batches ``(B, channels, height, width)`` of 0 to 1 at a size, where the model is.
        normalisation: Of the model.
        settings: Sizes and policies; those of the first fit the probe that all others are read by too.
        layers: Numbers of blocks; empty for all.
        seed: Of the patches that are kept of each picture.

    Returns:
        The rows, and the mean maps of each layer, ``(channels, rows, columns)``.
    """
    rows, means, probes = [], dict[tuple[Size, str], dict[str, Tensor]](), dict[str, PlaceProbe]()
    for size, policy in settings:
        set_policy(model, DEFAULT)
        if policy != DEFAULT:
            set_policy(model, policy)
        records = _record(model, pictures(size), normalisation, layers, seed)
        means[size, policy] = {name: record.mean_map for name, record in records.items()}
        for name, record in records.items():
            probe = PlaceProbe.fit(record)
            here, moved = probe.error(record), probes.setdefault(name, probe).error(record)
            rows.append(
                PlaceRow(
                    *size,
                    policy,
                    name,
                    record.images,
                    record.share(),
                    here["row"],
                    here["column"],
                    moved["row"],
                    moved["column"],
                    *record.same_place(),
                    *record.outliers(),
                )
            )
    return rows, means
