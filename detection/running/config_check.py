"""What a config says is looked at before anything is built: its numbers, and the weights that it starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from visionpe.checks import check_count, shown
from visionpe.detection.models.init_cfg import is_pretrained
from visionpe.utils.errors import InputError
from visionpe.utils.files import special

# Which numbers of a part are counts, and their least; mmengine fails on others late, or trains nothing.
COUNTS = {
    **{f"{stage}_dataloader": {"batch_size": 1, "num_workers": 0} for stage in ("train", "val", "test")},
    "train_cfg": {"max_epochs": 1, "max_iters": 1, "val_interval": 1},
}


# What a stage cannot do without.
NEEDED = {
    "train": ("train_dataloader", "train_cfg", "optim_wrapper"),
    "test": ("test_dataloader", "test_cfg", "test_evaluator"),
}


def check_numbers(config: Config, stages: Iterable[str]) -> None:
    """Refuse parts that are missing or no dictionaries, and counts that are none.

    Args:
        config: The config.
        stages: Of ``train``, ``val``, ``test``.

    Raises:
        InputError: Names the entry, what it is and what is allowed.
    """
    stages = tuple(stages)
    loaders = [f"{stage}_dataloader" for stage in stages]
    needed = ["model", *(part for stage in stages for part in NEEDED.get(stage, ()))]
    for part in (*needed, *loaders, "default_hooks", *(f"{stage}_evaluator" for stage in stages)):
        given: Any = config.get(part)
        if given is None:
            if part in needed:
                raise InputError(f"{part} is missing from the config; allowed: dict(type=..., ...)")
            continue
        several = part.endswith("_evaluator") and isinstance(given, (list, tuple))
        if not (several or isinstance(given, Mapping)):
            raise InputError(f"{part}={shown(given)} is no dictionary; allowed: dict(type=..., ...)")
        for name, least in COUNTS.get(part, {}).items():
            if given.get(name) is not None:
                try:
                    check_count(f"{part}.{name}", given[name], least)
                except (TypeError, ValueError) as error:
                    raise InputError(str(error)) from None


def check_sources(config: Config) -> None:
    """Refuse weights to start from that are not there.

    Raises:
        InputError: Names the first entry of the config.
    """
    if config.get("load_from"):
        check_checkpoint(config.load_from, "" if config.get("resume") else "load_from: ")
    for where, part in (("model", config.model), ("model.backbone", config.model.get("backbone") or {})):
        start = part.get("init_cfg") or {}
        for each in start if isinstance(start, (list, tuple)) else [start]:
            if is_pretrained(each):
                if not each.get("checkpoint"):
                    raise InputError(f"{where}.init_cfg: type={each['type']!r} needs checkpoint, a file or an address")
                check_checkpoint(str(each["checkpoint"]), f"{where}.init_cfg: ")
        if part.get("checkpoint_path"):
            check_checkpoint(str(part["checkpoint_path"]), f"{where}.checkpoint_path: ")
        file = (part.get("pretrained_cfg_overlay") or {}).get("file")
        if part.get("pretrained") and file:
            check_checkpoint(str(file), f"{where}.pretrained_cfg_overlay.file: ")


def check_checkpoint(checkpoint: Any, where: str = "") -> str:
    """Return the path of a checkpoint.

    Args:
        checkpoint: A path or an address.
        where: What comes ahead in the message.

    Raises:
        InputError: If it is no text, or a local path where no such file exists.
    """
    if not isinstance(checkpoint, (str, Path)):
        raise InputError(f"{where}checkpoint {shown(checkpoint)} is no text; allowed: a path or an address")
    path = Path(checkpoint).expanduser()
    if "://" not in str(checkpoint) and not path.is_file():
        if path.exists():
            what = "a folder" if path.is_dir() else special(path)
            raise InputError(f"{where}checkpoint {str(checkpoint)!r} is {what}; allowed: a file of weights")
        config = Path("configs", *Path(checkpoint).parts[1:-1]).with_suffix(".py")
        made = f"; visionpe train {config} makes it" if config.is_file() else ""
        raise InputError(f"{where}checkpoint {str(checkpoint)!r} does not exist{made}")
    return str(checkpoint)
