"""Labelled pictures for saliency: objects cut out of photographs before white, pasted on others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from visionpe.utils.errors import InputError, MissingFileError
from visionpe.utils.pictures import PictureError, open_picture

SIDE = 360  # of a picture, pixels
LONG_SIDE = (0.35, 0.75)  # of an object, shares of SIDE
WHITE = 235  # of 255 in every channel
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class CutOut:
    """A picture and what stands out in it.

    Args:
        name: Of the object's file.
        image: ``(3, SIDE, SIDE)``, 0 to 1.
        mask: ``(SIDE, SIDE)``, True on the object.
    """

    name: str
    image: Tensor
    mask: Tensor


def object_mask(photograph: np.ndarray) -> np.ndarray | None:
    """The object of a photograph that was taken, or cut out, before white.

    Args:
        photograph: ``(h, w, 3)``, 0 to 255.

    Returns:
        ``(h, w)``, True on the object: all that white does not reach from the edges. None where the edges are not
        white, or what is left is no single object of a tenth to six tenths of the picture, or a rectangle: a photograph
        with a white frame.
    """
    white = photograph.min(-1) >= WHITE
    if np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]]).mean() < 0.98:
        return None
    # Filled from outside, through a margin that joins all edges.
    outside = ndimage.label(np.pad(white, 1, constant_values=True))[0]
    parts, count = ndimage.label(ndimage.binary_opening(outside[1:-1, 1:-1] != outside[0, 0]))
    if not count:
        return None
    areas = ndimage.sum_labels(parts > 0, parts, range(1, count + 1))
    mask = parts == 1 + int(areas.argmax())
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    share = mask.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
    whole = areas.max() >= 0.9 * areas.sum() and 0.1 < mask.mean() < 0.6 and 0.3 < share < 0.85
    return mask if whole else None


def _files(folder: Path, seed: int, flag: str) -> list[Path]:
    """Pictures below a folder, shuffled, one of each sub-folder in turn."""
    if not folder.is_dir():
        raise MissingFileError(f"{flag} {folder}: there is no such folder")
    groups = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in ENDINGS:
            groups[file.parent].append(file)
    if not groups:
        raise InputError(f"{flag} {folder}: holds no pictures; allowed: a folder of {', '.join(ENDINGS)}")
    generator = np.random.default_rng(seed)
    shuffled = [[group[i] for i in generator.permutation(len(group))] for group in groups.values()]
    order = [shuffled[i] for i in generator.permutation(len(shuffled))]
    return [file for turn in zip_longest(*order) for file in turn if file is not None]


def _objects(files: Sequence[Path]) -> Iterator[tuple[Path, Image.Image, Image.Image]]:
    """Files with an object, the object in its bounding box, and its mask there."""
    for file in files:
        try:
            photograph = open_picture(file)
        except PictureError:
            continue
        mask = object_mask(np.asarray(photograph))
        if mask is not None:
            # The outermost pixels are mixed with white.
            alpha = Image.fromarray(255 * ndimage.binary_erosion(mask).astype(np.uint8))
            if box := alpha.getbbox():
                yield file, photograph.crop(box), alpha.crop(box)


def _paste(
    name: str, item: Image.Image, alpha: Image.Image, background: Image.Image, generator: np.random.Generator
) -> CutOut:
    factor = SIDE * generator.uniform(*LONG_SIDE) / max(item.size)
    size = max(1, round(factor * item.width)), max(1, round(factor * item.height))
    item, alpha = item.resize(size, Image.Resampling.BICUBIC), alpha.resize(size, Image.Resampling.BICUBIC)
    side = min(background.size)
    left, top = (int(generator.integers(length - side + 1)) for length in background.size)
    picture = background.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    x, y = (int(generator.integers(SIDE - length + 1)) for length in size)
    picture.paste(item, (x, y), alpha)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(alpha, (x, y))
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255  # (3, SIDE, SIDE)
    return CutOut(name, image, torch.from_numpy(np.array(mask)) >= 128)


def make_cutouts(objects: str | Path, backgrounds: str | Path, count: int, *, seed: int = 0) -> list[CutOut]:
    """Paste objects on photographs.

    Args:
        objects: A folder of photographs, of which those before white serve, one of each sub-folder in turn.
        backgrounds: A folder of photographs.
        count: How many pictures, each of an object and a background of its own.
        seed: Of the choice, and of places and sizes.

    Returns:
        The pictures; the first ones are the same for any ``count``.

    Raises:
        MissingFileError: If there is no such folder.
        InputError: If it holds too few.
    """
    objects, backgrounds = Path(objects), Path(backgrounds)
    generator = np.random.default_rng(seed)
    scenes = iter(_files(backgrounds, seed, "--backgrounds"))
    found: list[CutOut] = []
    for file, item, alpha in _objects(_files(objects, seed, "--objects")):
        if len(found) == count:
            break
        scene = next(scenes, None)
        if scene is None:
            raise InputError(f"--backgrounds {backgrounds}: {len(found)} pictures; {count} are needed")
        name = file.relative_to(objects).as_posix()
        found.append(_paste(name, item, alpha, open_picture(scene), generator))
    if len(found) < count:
        raise InputError(f"--objects {objects}: {len(found)} objects before white; {count} are needed")
    return found
