"""visionpe: any position encoding, in any vision transformer, at any resolution.

Importing it registers the backbones with timm::

    import timm, visionpe
    model = timm.create_model("rope_vit_b")

``visionpe/_public.py`` lists the names that are offered here.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionpe import _renamed

__version__ = "0.1.0"

# In a checkout, backbones/ and detection/ stand beside this folder. A wheel has them inside, and what stands beside
# it in site-packages under those names belongs to somebody else.
_root = Path(__file__).parent.parent
if not (Path(__file__).parent / "backbones").exists() and (_root / "backbones" / "vit" / "model.py").exists():
    __path__.append(str(_root))

_renamed.install()


def _is_command() -> bool:
    """Whether this process is the ``visionpe`` command, whose --help must not wait for PyTorch."""
    program = getattr(sys, "argv", [""])[:1]
    started_by_module = program == ["-m"] and "visionpe" in sys.orig_argv  # python -m visionpe
    return started_by_module or Path(*program).stem == "visionpe"


_LAZY = _is_command()
if TYPE_CHECKING or not _LAZY:
    from visionpe._public import *  # noqa: F403

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Old names of modules; and where the command is at work, public names, imported with the first of them."""
        if _LAZY:
            public = import_module("visionpe._public")
            if name in public.__all__:
                return getattr(public, name)
        return _renamed.old_modules(__name__)(name)
