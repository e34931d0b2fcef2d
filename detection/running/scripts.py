"""Run a program of OpenMMLab, or of anybody, with mmcv's operators in place.

    python -m visionpe.detection mmdet/tools/test.py CONFIG CHECKPOINT ...
    python -m visionpe.detection mmseg:browse_dataset.py CONFIG ...
    python -m visionpe.detection path/to/script.py ...
    python -m visionpe.detection -m package.module ...
    torchrun --nproc-per-node 8 -m visionpe.detection mmdet/tools/train.py CONFIG --launcher pytorch

SCRIPT is a file, or the name of a program that an installed package brings: the package, then the path below its
`.mim` folder or the end of that path. All that follows is the script's own. `--list` names the programs there are.
"""

from __future__ import annotations

import inspect
import os
import re
import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from visionpe.detection.running.safe_loading import LOGGED
from visionpe.utils.checkpoints import plain_types_only
from visionpe.utils.errors import InputError

PROG = "python -m visionpe.detection"
PACKAGES = ("mmdet", "mmseg", "mmpretrain")
# Read by the start-up line (build_backend/startup.py), so that Pythons which a script starts have the operators too.
SWITCH = "VISIONPE_OPENMMLAB"


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def packaged(package: str) -> dict[str, Path]:
    """The programs that an installed package brings, by their path below its ``.mim`` folder."""
    spec = find_spec(package) if _is_module(package) else None
    folders = [Path(place) / ".mim" for place in (spec.submodule_search_locations or ())] if spec else []
    return {
        file.relative_to(folder).as_posix(): file
        for folder in folders
        for file in sorted((folder / "tools").rglob("*.py"))
    }


def _ends_like(path: list[str], words: list[str]) -> bool:
    """Whether a path ends in the last word, and has the others ahead of it in their order."""
    left = iter(path)
    return path[-1] == words[-1] and all(word in left for word in words if word != ".mim")


def find_script(name: str) -> Path:
    """The file of a program.

    Args:
        name: A path; or ``package/tools/test.py``, ``package:test.py`` and the like, with or without ``.py`` and the
            folders ahead of it; of programs of one name that which lies least deep.

    Raises:
        InputError: If there is none, or more than one of that name; says which there are.
    """
    file = Path(name).expanduser()
    if file.is_file():
        return file
    parts = re.fullmatch(r"(\w+)(?:::?|[/\\])(.+?)(?:\.py)?", name)
    programs = packaged(parts[1]) if parts and not file.is_absolute() else {}
    if not parts or not programs:
        raise InputError(
            f"SCRIPT {name!r} is no file, and no program of an installed package; "
            f"allowed: a path, or such as mmdet/tools/test.py (--list names them)"
        )
    words = f"{parts[2]}.py".replace("\\", "/").split("/")
    found = [each for each in programs if _ends_like(each.split("/"), words)]
    found = [each for each in found if each.count("/") == min(other.count("/") for other in found)]
    if len(found) == 1:
        return programs[found[0]]
    near = found or [each for each in programs if get_close_matches(words[-1], [each.rpartition("/")[2]], cutoff=0.7)]
    allowed = (
        f"allowed: {', '.join(f'{parts[1]}/{each}' for each in near)}" if near else f"--list {parts[1]} names them"
    )
    raise InputError(f"SCRIPT {name!r}: {parts[1]} brings {len(found) or 'no'} programs of that name; {allowed}")


def _mend_matplotlib() -> None:
    """matplotlib 3.11 wants a renderer that mmpretrain's browse_dataset.py, written for older ones, does not give."""
    from matplotlib import _tight_bbox

    adjust = _tight_bbox.adjust_bbox

    def adjust_bbox(figure: Any, box: Any, renderer: Any = None, fixed_dpi: Any = None) -> Any:
        return adjust(figure, box, renderer or figure.canvas.get_renderer(), fixed_dpi)

    if inspect.signature(adjust).parameters["renderer"].default is inspect.Parameter.empty:
        _tight_bbox.adjust_bbox = adjust_bbox


def run_script(script: Path, arguments: Sequence[str]) -> None:
    """Run a file as ``python FILE ...`` does."""
    sys.argv = [str(script), *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(script.resolve().parent)
    if ".mim" in script.parts:  # programs that import each other as `tools.<name>`, as in a clone
        sys.path.append(str(next(each for each in script.parents if each.name == ".mim")))
        if "adjust_bbox(" in script.read_text(errors="replace"):
            _mend_matplotlib()
    runpy.run_path(str(script), run_name="__main__")


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module as ``python -m NAME ...`` does."""
    sys.argv = [name, *arguments]  # which runpy puts the file's path in place of
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        The exit code, where the script sets none: 0, 2 for a script that is not there.
    """
    first, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if first in ("", "-h", "--help"):
        print(f"usage: {PROG} SCRIPT ...\n\n{__doc__}")
        return 0 if first else 2
    if first == "--list":
        print(*(f"{package}/{name}" for package in rest or PACKAGES for name in packaged(package)), sep="\n")
        return 0
    os.environ[SWITCH] = "1"
    try:
        if first == "-m":
            if not rest or not _is_module(rest[0]):
                raise InputError(f"-m {' '.join(rest[:1])}: allowed: the name of a module that can be imported")
        else:
            script = find_script(first)
    except InputError as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return 2
    with plain_types_only(LOGGED):  # what a training of theirs writes, they read by plain torch.load
        if first == "-m":
            run_module(rest[0], rest[1:])
        else:
            run_script(script, rest)
    return 0
