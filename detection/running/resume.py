"""Going on after a kill at any point: the newest whole checkpoint."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path


def newest_checkpoint(directory: str | Path) -> str | None:
    """Find the checkpoint to go on from.

    mmengine trusts ``last_checkpoint``, which a kill can leave empty or behind; this looks at the files.

    Args:
        directory: Work directory of a run.

    Returns:
        Path of the newest whole ``iter_N.pth`` or ``epoch_N.pth``; None if there is none.
    """
    files = [path for pattern in ("iter_*.pth", "epoch_*.pth") for path in Path(directory).glob(pattern)]
    for path in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        # The directory of a zip file stands at its end: a truncated one has none.
        if zipfile.is_zipfile(path):
            return str(path)
        logging.getLogger("mmengine").warning("checkpoint %s is not whole: passed over", path)
    return None
