"""A cached grammar of yapf that another process has not written to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("mmpretrain")

from visionpe.detection.running import grammar
from visionpe.utils.errors import InputError


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes]:
    """The cache's file, empty as it is found between its move and its end, and what belongs in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget(monkeypatch)
    grammar.install()  # writes it
    (file,) = tmp_path.rglob("Grammar*.pickle")
    whole = file.read_bytes()
    file.write_bytes(b"")
    forget(monkeypatch)
    return file, whole


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in grammar.PACKAGES]:
        monkeypatch.delitem(sys.modules, name)


def test_waits_for_the_other_process(cut_off: tuple[Path, bytes]) -> None:
    file, whole = cut_off
    writer = threading.Timer(0.3, file.write_bytes, [whole])
    writer.start()
    grammar.install()
    writer.join()
    assert sys.modules[grammar.MODULE].FormatCode("a = 1")[0] == "a = 1\n"


@pytest.mark.parametrize("part", [0, 1000])
def test_a_file_that_stays_cut_off(cut_off: tuple[Path, bytes], part: int) -> None:
    file, whole = cut_off
    file.write_bytes(whole[:part])
    with pytest.raises(InputError, match="yapf's cache is cut off"):
        grammar.install(patience=0.2)


def test_first_of_all_imports(tmp_path: Path) -> None:
    """In a process that knows nothing of yapf, without a cache and with one."""
    code = "import visionpe.detection; from mmengine.config import Config; print(Config(dict(a=1)).pretty_text)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == "a = 1", done.stderr
    assert list(tmp_path.rglob("Grammar*.pickle"))
