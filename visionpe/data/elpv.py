"""Solar cells in electroluminescence, whole or damaged: the photographs that the package ``elpv-dataset`` holds.

2,624 grey images of 300 x 300 pixels, whose cracks and dead regions are fine lines. Source: Buerhop-Lutz et al., "A
Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery", EU PVSEC 2018; Deitsch et
al., "Automatic classification of defective photovoltaic module cells in electroluminescence images", Solar Energy 2019.
The images are under CC BY-NC-SA 4.0: not for commercial use.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from visionpe.data.listed import Photographs, Split
from visionpe.data.splitting import stratified

CLASSES = ("functional", "defective")
HELD_OUT = {"test": 600, "val": 300}
# Mean and standard deviation of the training images, in 0..255, at 32 x 32 pixels.
STATISTICS = (153.2, 38.2)


def _folder() -> Path:
    found = find_spec("elpv_dataset")
    if found is None or not found.submodule_search_locations:
        raise ImportError("the package elpv-dataset is not installed; install the `data` extra")
    return Path(found.submodule_search_locations[0]) / "data"


@lru_cache(maxsize=1)
def _splits() -> dict[str, tuple[tuple[Path, int], ...]]:
    """Stratified by how likely a defect is, of four degrees, and by the kind of cell."""
    folder = _folder()
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    kinds = sorted({(degree, kind) for _, degree, kind in rows})
    parts = stratified([kinds.index((degree, kind)) for _, degree, kind in rows], HELD_OUT)
    samples = [(folder / file, int(float(degree) > 0.5)) for file, degree, _ in rows]
    return {split: tuple(samples[i] for i in sorted(index.tolist())) for split, index in parts.items()}


def load_elpv(split: Split = "test") -> Photographs:
    """Find one split: 1,724 images to train, 300 for choices, 600 for results.

    A cell counts as defective where the experts' probability is above one half. 31% of the cells are, so that accuracy
    alone says little: see balanced accuracy.

    Args:
        split: ``train``, ``val`` or ``test``.

    Raises:
        ImportError: If the package ``elpv-dataset`` is not installed.
    """
    return Photographs("elpv", CLASSES, _splits()[split])
