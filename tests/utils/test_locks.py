"""One program at a time in a folder, and children that end with their parent."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from forked import Forked
from rich.console import Console

from visionpe.cli import main
from visionpe.cli.common import exit_code
from visionpe.quickstarts.trainings import Training, train
from visionpe.utils.errors import InputError
from visionpe.utils.locks import locked


class Sleeper(Training):
    def command(self) -> list[str]:
        return [sys.executable, "-c", "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"]


def sleeping(folder: Path) -> int:
    os.chdir(folder)
    sleepers = [Sleeper("a", Path("c.py"), Path("w").resolve(), 0, 2)]
    return exit_code(lambda: train(sleepers, Console(), at_once=1, interval=0.05))


def holding(folder: Path) -> int:
    with locked(folder, "training"):
        (folder / "held").touch()
        time.sleep(60)
    return 0


def wait_for(file: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not (file.exists() and (file.read_text() or file.name == "held")) and time.monotonic() < end:
        time.sleep(0.05)


@pytest.fixture
def holder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    process = Forked(lambda: holding(tmp_path), tmp_path_factory.mktemp("holder") / "err")
    wait_for(tmp_path / "held")
    (tmp_path / "held").unlink()
    yield process
    with suppress(ProcessLookupError, ChildProcessError):
        process.end()


def test_a_folder_into_which_nothing_came_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new", "training"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "new", "training"):
        (tmp_path / "new" / "log").touch()
    assert (tmp_path / "new" / "log").exists()
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine", "training"):
        pass
    assert (tmp_path / "mine").exists()


def test_a_folder_is_held_until_its_process_ends(holder: Forked, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=rf"another training is at work there \(process {holder.pid}\)"),
        locked(tmp_path, "training"),
    ):
        pass
    with locked(tmp_path, "study"):  # other work may go on
        pass
    holder.end()
    with locked(tmp_path, "training"):
        assert (tmp_path / ".training.lock").exists()
    assert not list(tmp_path.iterdir())


def test_a_second_training_is_refused(holder: Forked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits/rope_mixed_vit.py", "--work-dir", str(tmp_path)]) == 2
    message = rf"^error: --work-dir {tmp_path}: another training is at work there \(process {holder.pid}\)"
    assert re.match(message, capsys.readouterr().err.splitlines()[-1])


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be written to"), locked(tmp_path / "file", "study"):
        pass


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with a killed parent")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_children_end_with_their_parent(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    process = Forked(lambda: sleeping(tmp_path), tmp_path / "err")
    wait_for(tmp_path / "pid")
    child = int((tmp_path / "pid").read_text())
    assert alive(child)
    assert process.end(sent) == code
    end = time.monotonic() + 10
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child)
    if sent != signal.SIGKILL:
        err = (tmp_path / "err").read_text()
        assert err.splitlines()[-1].endswith("the same command goes on from there")
        assert "Traceback" not in err


def test_sigterm_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(lambda: os.kill(os.getpid(), signal.SIGTERM), "all is kept") == 143
    assert capsys.readouterr().err == "terminated: all is kept\n"
    assert signal.getsignal(signal.SIGTERM) is before
