"""One namespace, however it is installed, with all that a user needs inside."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHERE = "import visionpe, visionpe.backbones.vit as v; print(visionpe.__file__, v.__file__, sep='\\n')"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    for folder in ("visionpe", "backbones", "detection", "configs", "build_backend"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored, symlinks=True)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    return copy


def places(cwd: Path, path: Path) -> list[Path]:
    lines = subprocess.check_output([sys.executable, "-c", WHERE], cwd=cwd, env={"PYTHONPATH": str(path)}, text=True)
    return [Path(line) for line in lines.splitlines()]


def test_started_in_a_checkout_that_is_not_installed(checkout: Path) -> None:
    for place in places(checkout, checkout):
        assert place.is_relative_to(checkout)


def test_a_folder_of_that_name_does_not_hide_an_editable_install(checkout: Path, tmp_path: Path) -> None:
    """Started in the folder above a clone: setuptools' own finder is asked after that of paths, which sees a folder."""
    clone, wheels, site = checkout.rename(tmp_path / "visionpe"), tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    build = f"import backend; backend.build_editable({str(wheels)!r})"
    path = {"PYTHONPATH": str(clone / "build_backend")}
    subprocess.check_call([sys.executable, "-c", build], cwd=clone, env=path, stdout=subprocess.DEVNULL)
    (wheel,) = wheels.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    for line in site.glob("*.data/purelib/*"):
        line.rename(site / line.name)
    for above, first in ((tmp_path, ""), (site, str(tmp_path))):  # in sys.path as Python starts, or anywhere in it
        find = f"import site, sys; sys.path.insert(0, {first!r}); "
        find += f"[site.addsitedir({str(site)!r}) for _ in range(2)]; import importlib.util"  # as some interpreters do
        find += "; print(importlib.util.find_spec('visionpe').origin)"
        origin = subprocess.check_output([sys.executable, "-S", "-c", find], cwd=above, text=True)
        assert Path(origin.strip()) == clone / "visionpe" / "__init__.py"


@pytest.mark.slow
def test_wheel(checkout: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.check_call([*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)], cwd=checkout)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0].split("-")[0] for n in names} == {"visionpe"}
    inner = [path.relative_to(ROOT / "visionpe") for path in (ROOT / "visionpe").rglob("*.py")]
    inner += [path.relative_to(ROOT / "visionpe") for path in (ROOT / "visionpe").rglob("*.html")]
    beside = [path.relative_to(ROOT) for folder in ("backbones", "detection") for path in (ROOT / folder).rglob("*.py")]
    configs = [Path(".mim") / path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.py")]
    wanted = [Path("py.typed"), Path(".mim/model-index.yml"), *inner, *beside, *configs]
    missing = {f"visionpe/{path.as_posix()}" for path in wanted} - set(names)
    assert not missing

    site = tmp_path / "site"
    subprocess.check_call([*pip, "install", "--no-deps", "--target", str(site), str(wheel)])
    for name in ("backbones", "detection", "configs"):  # a user's own folders of these names
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("raise ImportError('not ours')")
        (site / name / "vit.py").write_text("raise ImportError('not ours')")
    for place in places(tmp_path, site):
        assert place.is_relative_to(site / "visionpe")
