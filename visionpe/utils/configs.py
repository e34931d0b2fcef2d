"""The configs that are shipped with the package, and finding one by name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from visionpe.utils.errors import InputError

SCOPE = "visionpe::"


def config_root() -> Path:
    """The folder of the shipped configs, laid out as OpenMMLab expects it of a package (``<package>/.mim/configs``)."""
    package = Path(__file__).parents[1]
    shipped = package / ".mim" / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"  # a checkout without symbolic links


def list_configs(pattern: str = "*") -> list[str]:
    """Names of the shipped configs that can be run, such as ``coco/mask_rcnn_cswin_t_1x.py``, sorted.

    Args:
        pattern: Of the names, with ``*`` for anything.
    """
    root = config_root()
    names = (file.relative_to(root) for file in root.rglob("*.py") if "_base_" not in file.relative_to(root).as_posix())
    return sorted(name.as_posix() for name in names if name.match(pattern) or pattern in name.as_posix())


def find_config(name: str | Path) -> Path:
    """A config file: one of that path here, or else a shipped one.

    Args:
        name: A path; a shipped config by its name below ``configs/``, with or without ``visionpe::`` or ``configs/``
            ahead of it.

    Raises:
        InputError: If there is neither; names the nearest ones.
    """
    text = str(name)
    file = Path(text).expanduser()
    if file.is_file():
        return file
    inside = text.removeprefix(SCOPE).removeprefix("configs/")
    shipped = config_root() / inside
    if not file.is_absolute() and shipped.is_file():
        return shipped
    beside = [str(near) for near in file.parent.glob("*.py")] if file.parent.is_dir() else []
    near = get_close_matches(text, beside, n=3) or get_close_matches(inside, list_configs(), n=3)
    raise InputError(f"config {text!r} does not exist" + (f"; did you mean {', '.join(near)}?" if near else ""))
