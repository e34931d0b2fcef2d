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
