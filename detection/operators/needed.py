"""Which operators mmdet, mmseg and mmpretrain take from mmcv, where, and whether the stand-in has them.

    python -m visionpe.detection.operators.needed

prints a table in Markdown, read from the sources and configs of the installed packages; nothing of them is run.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from visionpe.detection.operators.extension import OPS
from visionpe.utils.errors import first_few

PACKAGES = ("mmdet", "mmseg", "mmpretrain")
# Names by which configs ask for a layer of mmcv.ops are registered, or, of RoI layers and kinds of NMS, their own.
BY_TYPE = re.compile(r"""(?:type|conv_cfg)=(?:dict\(type=)?["'](\w+)["']|["']type["']:\s*["'](\w+)["']""")


def _folder(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(next(iter(spec.submodule_search_locations or ()))) if spec else None


def _names(node: ast.AST) -> set[str]:
    """Names in use, those in strings too: ``batched_nms`` evaluates the type of NMS."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names | {
        each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def _called(node: ast.AST) -> set[str]:
    """What of ``ext_module`` is called inside."""
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "ext_module"
    }


def _registered(node: ast.stmt) -> Iterator[str]:
    """Names that a class is registered under besides its own."""
    for decorator in getattr(node, "decorator_list", []):
        given = [*getattr(decorator, "args", []), *(each.value for each in getattr(decorator, "keywords", []))]
        yield from (each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str))


class Operators:
    """What stands in ``mmcv.ops``: names, and the functions of the compiled extension behind each."""

    def __init__(self) -> None:
        self._called: dict[str, set[str]] = defaultdict(set)
        self._uses: dict[str, set[str]] = defaultdict(set)
        self._own: dict[str, str] = {}  # name in configs -> name in mmcv.ops
        folder = _folder("mmcv")
        for file in sorted((folder / "ops").glob("*.py")) if folder else ():
            self._read(ast.parse(file.read_text()))

    def _read(self, module: ast.Module) -> None:
        for node in module.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [node.name] if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else []
            names += [each.id for each in targets if isinstance(each, ast.Name)]
            for name in set(names) - {"ext_module"}:
                self._called[name] |= _called(node)
                self._uses[name] |= _names(node) - {name}
                self._own.update(dict.fromkeys([name, *_registered(node)], name))

    def behind(self, name: str) -> set[str]:
        """The functions of the extension that an object of ``mmcv.ops`` may call, over whatever it uses there."""
        seen, left = set(), [self._own.get(name, name)]
        while left:
            if (each := left.pop()) not in seen:
                seen.add(each)
                left += self._uses[each] & self._called.keys()
        return {function for each in seen for function in self._called[each]}

    @cached_property
    def compiled(self) -> dict[str, str]:
        """Names in Python and in configs -> name in ``mmcv.ops``, of what calls the extension."""
        return {name: own for name, own in self._own.items() if self.behind(own)}


@dataclass
class Need:
    """An object of ``mmcv.ops``."""

    functions: set[str]
    sources: set[str] = field(default_factory=set)
    configs: set[str] = field(default_factory=set)

    @property
    def lacking(self) -> list[str]:
        """Functions behind it that the stand-in does not have."""
        return sorted(self.functions - OPS.keys())


def _imported(file: Path) -> set[str]:
    """Names that a source file imports from ``mmcv.ops``."""
    text = file.read_text(errors="replace")
    if "mmcv.ops" not in text:
        return set()
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if (node.module or "").startswith("mmcv.ops") for alias in node.names}


def _asked_for(file: Path) -> set[str]:
    """Types that a config names."""
    return {name for found in BY_TYPE.findall(file.read_text(errors="replace")) for name in found if name}


def needs() -> dict[str, Need]:
    """What the packages take from ``mmcv.ops`` of what calls its extension, by name.

    Returns:
        For each where it is imported, as ``package/file.py``, and which folders of configs name it.
    """
    operators = Operators()
    found: dict[str, Need] = {}

    def need(name: str) -> Need | None:
        own = operators.compiled.get(name)
        return found.setdefault(own, Need(operators.behind(own))) if own else None

    for package, folder in ((name, folder) for name in PACKAGES if (folder := _folder(name)) is not None):
        for file in sorted(folder.rglob("*.py")):
            inside = file.relative_to(folder).parts
            if inside[:2] == (".mim", "configs"):
                for name in _asked_for(file):
                    if (each := need(name)) is not None:
                        each.configs.add(f"{package}::{inside[2]}")
            elif inside[0] != ".mim":
                for name in _imported(file):
                    if (each := need(name)) is not None:
                        each.sources.add("/".join((package, *inside)))
    return dict(sorted(found.items(), key=lambda item: (bool(item[1].lacking), item[0].lower())))


def table() -> str:
    """``needs()`` in Markdown."""
    lines = ["| `mmcv.ops` | here | taken by | named by configs of |", "|---|---|---|---|"]
    for name, need in needs().items():
        files = {"/".join([source.split("/")[0], source.split("/")[-1]]) for source in need.sources}
        here = f"no: {', '.join(f'`{each}`' for each in need.lacking)}" if need.lacking else "yes"
        lines.append(f"| `{name}` | {here} | {first_few(sorted(files), 4)} | {first_few(sorted(need.configs), 4)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
