"""yapf's cached grammar, which mmengine reads as it is imported, by several processes at once.

yapf moves the file into its place before all of it is written. Of two processes that start together on a new machine
one may read half of it, and its import of mmengine ends in ``EOFError: Ran out of input``. A moment later the file is
whole, unless the first process was killed there.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from contextlib import suppress

from visionpe.utils.errors import InputError

MODULE = "yapf.yapflib.yapf_api"  # another first would find a circle of imports
PACKAGES = ("yapf", "yapf_third_party")


def install(patience: float = 5.0) -> None:
    """Have the grammar read, before anything imports mmengine; does nothing where there is no yapf.

    Args:
        patience: Seconds for which a file that is cut off is looked at again.

    Raises:
        InputError: If it is still cut off then.
    """
    end = time.monotonic() + patience
    while True:
        try:
            with suppress(ImportError):
                importlib.import_module(MODULE)
            return
        except (EOFError, pickle.UnpicklingError):
            if time.monotonic() > end:
                raise InputError(
                    "yapf's cache is cut off (Grammar*.pickle in the folder YAPF of the user's cache, ~/.cache on "
                    "Linux); delete that folder, yapf writes it anew"
                ) from None
            forget()
            time.sleep(0.05)


def forget() -> None:
    """Take what was imported of yapf out of ``sys.modules``, so that all of it is imported again."""
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
