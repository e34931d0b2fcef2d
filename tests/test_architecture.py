"""Imports run one way: a room uses rooms on lower floors, and no module imports itself by way of others."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = {
    "visionpe": ROOT / "visionpe",
    "visionpe.backbones": ROOT / "backbones",
    "visionpe.detection": ROOT / "detection",
}
# Room -> the rooms that it may use. A room is a folder, or a file that stands directly in visionpe/.
MAY_USE = {
    "cache": "tracing",
    "checks": "",
    "ranges": "checks",
    "tracing": "",
    "precision": "tracing",
    "opaque": "",
    "graphs": "",
    "cameras": "checks opaque tracing",
    "grid": "cameras opaque tracing",
    "memo": "grid tracing",
    "kept": "grid tracing",
    "mixed": "grid opaque",
    "_renamed": "",
    "utils": "",
    "data": "utils",
    "sparse": "checks grid",
    "policy": "cache checks precision ranges tracing utils",
    "attention": "cache checks grid precision tracing policy",
    "tensors": "",
    "base": "attention cache checks graphs grid memo policy ranges tensors",
    "watching": "",
    "composition": "attention base grid memo mixed policy watching",
    "one_block": "base composition grid",
    "specification": "utils",
    "registry": "base checks composition specification",
    "encodings": "_renamed attention base cameras checks grid kept memo precision ranges tracing registry policy "
    "sparse watching",
    "backbones": "_renamed attention base cache cameras checks composition graphs grid memo mixed one_block opaque "
    "ranges registry encodings policy sparse tracing utils watching",
    "_public": "attention backbones base cameras composition grid registry encodings policy",
    "visionpe": "_public _renamed",
    "exporting": "backbones utils visionpe",
    "viewing": "attention backbones checks data policy utils visionpe",
    "scaling": "attention backbones data policy utils viewing visionpe",
    "saliency": "backbones data policy scaling utils viewing visionpe",
    "looking": "policy scaling utils viewing visionpe",
    "benchmarks": "attention backbones base composition data sparse utils viewing visionpe",
    "detection": "_renamed backbones checks data policy ranges scaling sparse utils viewing visionpe",
    "quickstarts": "data detection scaling utils viewing visionpe",
    "cli": "backbones benchmarks data detection exporting looking quickstarts saliency scaling utils viewing visionpe",
    "__main__": "cli",
}
# Importing these must work with PyTorch alone; timm begins with the backbones.
PURE = [
    *(
        "cache",
        "checks",
        "ranges",
        "tracing",
        "precision",
        "opaque",
        "graphs",
        "cameras",
        "grid",
        "memo",
        "kept",
        "mixed",
        "sparse",
        "policy",
        "attention",
        "base",
        "composition",
        "one_block",
    ),
    "specification",
    "registry",
    "encodings",
    "data",
]
HEAVY = {"timm", "mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "matplotlib", "plotly", "rich", "onnx"}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package, folder in ROOTS.items():
        for file in folder.rglob("*.py"):
            if ".mim" not in file.parts:
                parts = [x for x in file.relative_to(folder).with_suffix("").parts if x != "__init__"]
                found[".".join([package, *parts])] = file
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports anywhere in it: modules of ours by name, others by their first part."""
    names = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            base = node.module or ""
            names |= {f"{base}.{a.name}" if f"{base}.{a.name}" in modules() else base for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names - {module})


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("name", MAY_USE)
def test_a_room_uses_lower_rooms(name: str) -> None:
    allowed = {name, *MAY_USE[name].split()}
    for module in (m for m in modules() if room(m) == name):
        for other in imports(module) & modules().keys():
            assert room(other) in allowed, f"{module} imports {other}; {name} may use: {MAY_USE[name] or 'nothing'}"


def test_floors_have_an_order_and_every_room_one() -> None:
    assert {room(module) for module in modules()} == set(MAY_USE)
    TopologicalSorter({name: set(uses.split()) for name, uses in MAY_USE.items()}).prepare()  # raises on a circle


def test_no_circles() -> None:
    graph = {module: imports(module) & modules().keys() for module in modules()}
    # That a package imports what stands in it is no circle, as long as nothing inside asks the package itself.
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", PURE)
def test_heavy_packages_stay_out_of_the_core(name: str) -> None:
    for module in (m for m in modules() if room(m) == name):
        found = {other.split(".")[0] for other in imports(module)} & HEAVY
        assert not found, f"{module} imports {found}"


def test_detection_reaches_backbones_through_timm() -> None:
    for module in (m for m in modules() if room(m) == "detection"):
        reached = {other for other in imports(module) if other.startswith("visionpe.backbones")}
        assert reached <= {"visionpe.backbones"}, f"{module} imports {reached}"


def test_what_import_visionpe_brings() -> None:
    import subprocess
    import sys

    code = "import sys, visionpe; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split())
    assert not loaded & (HEAVY - {"timm"})
    assert "visionpe.scaling" not in loaded
