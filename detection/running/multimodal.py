"""mmpretrain beside a transformers that is too new for its models of images and text."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

NAME = "mmpretrain.utils.dependency"
# Of transformers: from here on names are gone that mmpretrain's models of images and text import.
TOO_NEW = 5


def install() -> bool:
    """Leave mmpretrain's models of images and text out where they would keep all of mmpretrain from being imported.

    They are then what they are without transformers: names that say what to install. Call it before anything imports
    mmpretrain.

    Returns:
        Whether they are left out.
    """
    try:
        installed = int(version("transformers").partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return False
    package = find_spec("mmpretrain")
    if installed < TOO_NEW or NAME in sys.modules or package is None or package.origin is None:
        return False
    spec = spec_from_file_location(NAME, Path(package.origin).parent / "utils" / "dependency.py")
    if spec is None or spec.loader is None:
        return False
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.WITH_MULTIMODAL = False  # type: ignore[attr-defined]
    sys.modules[NAME] = module
    return True
