"""Caltech-101: natural images of 101 classes, 40 to 800 each, about 300 x 200 pixels, some of them grey.

Source: Fei-Fei, Fergus and Perona, "Learning generative visual models from few training examples", CVPRW 2004;
published by Caltech under CC BY 4.0.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from visionpe.data.listed import Photographs, Split
from visionpe.data.splitting import stratified

# Of every class.
TEST_SHARE, VAL_SHARE = 0.2, 0.1
NOT_A_CLASS = "BACKGROUND_Google"
ENDINGS = (".jpg", ".jpeg", ".png")


def _listed(folder: Path) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for path in sorted(folder.glob("*/*")):
        if path.suffix.lower() in ENDINGS and path.parent.name != NOT_A_CLASS:
            found[path.parent.name].append(path)
    return dict(found)


def _downloaded(root: Path) -> Path:
    """The folder of classes as torchvision leaves it, which downloads it."""
    from torchvision.datasets import Caltech101

    folder = root / "101_ObjectCategories"
    if folder.is_dir():
        return folder
    try:
        Caltech101(str(root.parent), download=True)
    except Exception as error:
        raise FileNotFoundError(
            f"{root}: Caltech-101 is not there and could not be downloaded ({error}); put it there as torchvision "
            "does (101_ObjectCategories/<class>/*.jpg), or as train/<class>/*.jpg and test/<class>/*.jpg"
        ) from error
    return folder


def _split(samples: list[tuple[Path, int]], held_out: dict[str, float]) -> dict[str, list[tuple[Path, int]]]:
    numbers = {split: round(share * len(samples)) for split, share in held_out.items()}
    parts = stratified([label for _, label in samples], numbers)
    return {split: [samples[i] for i in sorted(index.tolist())] for split, index in parts.items()}


def load_caltech101(split: Split = "test", root: Path = Path("data/caltech101")) -> Photographs:
    """Find one split of Caltech-101, which has no official one.

    Args:
        split: ``train``, ``val`` or ``test``. Where ``root`` holds folders ``train`` and ``test`` of classes, these are
            the splits and ``val`` is a tenth of ``train``; else a fifth of each class is for results and a tenth for
            choices, drawn once for all.
        root: Where the images are, or are downloaded to by torchvision.

    Raises:
        FileNotFoundError: If they are not there and cannot be downloaded.
    """
    ready = all((root / part).is_dir() for part in ("train", "test"))
    found = _listed(root / "train" if ready else _downloaded(root))
    classes = tuple(sorted(found))
    samples = [(path, label) for label, name in enumerate(classes) for path in found[name]]
    if not samples:
        raise FileNotFoundError(f"{root}: holds no images of Caltech-101; expected {root}/train/<class>/*.jpg")
    if not ready:
        parts = _split(samples, {"test": TEST_SHARE, "val": VAL_SHARE})
    elif split == "test":
        own = _listed(root / "test")
        parts = {"test": [(path, classes.index(name)) for name in sorted(own) for path in own[name]]}
    else:
        parts = _split(samples, {"val": VAL_SHARE})
    return Photographs("caltech101", classes, tuple(parts[split]))
