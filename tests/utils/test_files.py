"""Files appear whole or not at all, leave nothing behind, and what cannot be written is found out before the work."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import Forked

from visionpe.cli import main
from visionpe.cli.common import exit_code
from visionpe.utils import files
from visionpe.utils.errors import InputError
from visionpe.utils.files import check_output, replacing, write_atomic


@pytest.fixture
def unswept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SWEPT", set())


def half(path: Path, said: Path) -> int:
    with replacing(path) as temporary:
        temporary.write_text("half")
        said.write_text(str(temporary))
        time.sleep(60)
    return 0


@pytest.fixture
def writer(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Where it writes stands in its ``err``."""
    said = tmp_path_factory.mktemp("writer") / "said"
    process = Forked(lambda: half(tmp_path / "table.json", said), said)
    end = time.monotonic() + 60
    while not (said.exists() and said.read_text()) and time.monotonic() < end:
        time.sleep(0.01)
    yield process
    with suppress(ProcessLookupError, ChildProcessError):
        process.end()


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError("no number")])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "below" / "file"
    write_atomic(path, b"old")

    def work() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"new")
            raise error

    with pytest.raises(type(error)):
        work()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]
    with replacing(path, durable=False) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.usefixtures("unswept")
def test_what_a_killed_process_left_is_removed(tmp_path: Path, writer: Forked) -> None:
    left = Path(writer.err.read_text())
    other = tmp_path / left.name.replace(files._HOST, "0" * 8)  # of another machine on the same disk
    for kept in (other, tmp_path / ".mine.partial"):
        kept.write_text("")
    write_atomic(tmp_path / "table.json", "while the other is at work")
    assert left.exists()
    assert writer.end(signal.SIGKILL) == -signal.SIGKILL
    files._SWEPT.clear()
    write_atomic(tmp_path / "table.json", "after it")
    assert {file.name for file in tmp_path.iterdir()} == {"table.json", ".mine.partial", other.name}


def test_a_full_disk_is_one_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    for error in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")):
        with monkeypatch.context() as patch:
            patch.setattr(files.shutil, "disk_usage", lambda where: SimpleNamespace(free=0))
            with pytest.raises(OSError, match="No space left on device") as raised, replacing(path):
                raise error
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert not list(tmp_path.iterdir())


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, replacing(tmp_path / "file"):
        Path("nowhere").read_text()
    assert raised.value.filename == "nowhere"


def test_programs_report_what_cannot_be_written_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: write_atomic("/proc/none/file", "")) == 2
    assert capsys.readouterr().err == "error: /proc/none/file: No such file or directory\n"


def test_places_are_looked_at_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    check_output(tmp_path / "file", "--out")
    check_output(tmp_path / "new" / "deep" / "file", "--out")
    check_output(tmp_path / "folder", "--out", folder=True)
    check_output("relative", "--out")
    with pytest.raises(InputError, match=r"^--out .*folder: is a folder; give a file$"):
        check_output(tmp_path / "folder", "--out")
    with pytest.raises(InputError, match=r"^--out .*file: is a file; give a folder$"):
        check_output(tmp_path / "file", "--out", folder=True)
    with pytest.raises(InputError, match=r"^--out .*below: .*file is a file; give another place$"):
        check_output(tmp_path / "file" / "below", "--out")
    monkeypatch.setattr(files.os, "access", lambda place, mode: place != tmp_path)  # root may do everything
    check_output(tmp_path / "folder" / "file", "--out")
    with pytest.raises(InputError, match=f"^--out .*new/file: there is no right to write in {tmp_path}; give another"):
        check_output(tmp_path / "new" / "file", "--out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "IMAGE", "--config", "digits/rope_mixed_vit.py", "--checkpoint", "w.pth", "--out", "FILE"],
        ["test", "digits/rope_mixed_vit.py", "WEIGHTS", "--out", "FOLDER"],
        ["test", "digits/rope_mixed_vit.py", "WEIGHTS", "--work-dir", "FILE"],
        ["train", "digits/rope_mixed_vit.py", "--work-dir", "FILE"],
        ["export", "rope_vit_ti", "--out", "FOLDER"],
        ["benchmark", "--out", "FILE"],
        ["benchmark", "backbones", "--out", "FILE"],
        ["benchmark", "swin3d", "--out", "FILE"],
        ["points", "--room", "1", "--out", "FILE/below"],
        ["points", "predict", "--room", "1", "--model", "swin3d_t", "--out", "FILE/below"],
        ["scaling", "--model", "rope_vit_ti", "--data", "digits", "--resolutions", "1x", "--out", "FILE"],
        ["study", "--out", "FILE"],
        ["quickstart", "--out", "FILE"],
        ["quickstart", "rooms", "--out", "FILE"],
        ["scenes", "--out", "FILE/below"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_every_program_looks_first(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "w.pth").write_text("")
    names = {"FILE": "file", "FOLDER": "folder", "WEIGHTS": "w.pth", "IMAGE": "file", "FILE/below": "file/below"}
    assert main([str(tmp_path / names[word]) if word in names else word for word in command]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert "error" in printed[-1]
    assert command[-2] in printed[-1]
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "w.pth"]
