"""Less noise: silent imports of OpenMMLab, and a console that shows progress rather than parameters."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

# How the long records open that mmengine writes before the first iteration. The log file keeps them all.
BULKY = (
    "System environment:",
    "Config:",
    "Hooks will be executed in the following order:",
    "paramwise_options --",
    "Distributed training is not used",
    "Because batch augmentations are enabled",
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    "Checkpoints will be saved to",
    "Exp name:",
)


class ConsoleFilter(logging.Filter):
    """Keep the environment, the configuration and other bulk off the console; let warnings and progress pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is worth a line on the console."""
        opening = record.getMessage()[:200].lstrip("-\n ")
        return record.levelno > logging.WARNING or not opening.startswith(BULKY)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Silence prints, Python warnings and log records below ERROR while packages are imported.

    mmpretrain imports mmdet and mmseg, which speak of optional parts that are not needed here.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@contextlib.contextmanager
def printed_into(log: Path) -> Iterator[None]:
    """Everything printed goes to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield
