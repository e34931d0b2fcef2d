"""Trainings of small ViTs on data by name, one an encoding and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import visionpe
from visionpe.quickstarts.trainings import Training
from visionpe.utils.configs import config_root
from visionpe.utils.errors import InputError


def small_vits(
    encodings: Sequence[str], *, seeds: int, data: str, out: Path, epochs: int | None = None
) -> list[Training]:
    """What to train.

    Args:
        encodings: Names with a ``configs/<data>/<name>_vit.py`` that begin with an encoding's.
        seeds: Trainings of each.
        data: A folder of configs: ``digits``, ``mnist``, ``elpv`` or ``caltech101``.
        out: The runs stand in ``runs/<data>`` below it.
        epochs: Stop after so many of the config's schedule; None for all.

    Raises:
        InputError: If an encoding has no config.
    """
    from mmengine.config import Config  # takes seconds to import

    folder = config_root() / data
    # Configs of detectors and segmentors stand beside them; `seqpe_mul` is an encoding with options.
    names = tuple(f"{name}_" for name in visionpe.list_encodings())
    known = sorted(path.stem[: -len("_vit")] for path in folder.glob("*_vit.py") if path.name.startswith(names))
    trainings = []
    for encoding in dict.fromkeys(encodings):
        if encoding not in known:
            raise InputError(f"--encodings {encoding}: no {folder}/{encoding}_vit.py; allowed: {', '.join(known)}")
        config = folder / f"{encoding}_vit.py"
        length = epochs or Config.fromfile(config, import_custom_modules=False).train_cfg.max_epochs
        options = (f"train_cfg.max_epochs={length}",) if epochs else ()
        for seed in range(seeds):
            name = f"{encoding}_seed{seed}" + (f"_{length}epochs" if epochs else "")
            directory = out.resolve() / "runs" / data / name
            trainings.append(Training(f"{encoding}, seed {seed}", config, directory, seed, length, options))
    return trainings
