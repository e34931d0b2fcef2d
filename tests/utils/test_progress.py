"""Progress is told where the output is no terminal, and is quiet where it should be."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from visionpe.utils.progress import SteadyProgress, clock


def told(*, terminal: bool = False, quiet: bool = False) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80)
    with SteadyProgress(console=console, quiet=quiet, interval=0.02) as progress:
        waiting = progress.add_task("later", total=5, start=False)
        bar = progress.add_task("measuring [/x] at 2x", total=4)
        progress.advance(bar)
        time.sleep(0.15)
        progress.update(bar, completed=4)
        progress.update(waiting, completed=5)
        ended = len(text.getvalue())
        time.sleep(0.05)
        assert terminal or len(text.getvalue()) == ended  # what is done is not told again
    return text.getvalue()


def test_a_line_now_and_then() -> None:
    lines = told().splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("measuring [/x] at 2x 25%, 0:00 so far, about 0:00 left") for line in lines)
    assert told(quiet=True) == ""
    assert " so far, about " not in told(terminal=True)


def test_time_left_is_that_of_the_speed_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    from visionpe.utils.progress import line_of

    with SteadyProgress(console=Console(file=io.StringIO()), get_time=lambda: now) as progress:
        now = 100.0
        bar = progress.add_task("", total=8)
        now = 160.0
        progress.advance(bar, 2)
        assert line_of(progress.tasks[0]) == "working 25%, 1:00 so far, about 3:00 left"
    assert [clock(s) for s in (5, 187.9, 3723)] == ["0:05", "3:07", "1:02:03"]


def test_tracked_items_are_counted_where_nothing_is_drawn() -> None:
    file = io.StringIO()
    with SteadyProgress(console=Console(file=file), interval=0.02) as progress:
        for n in progress.track([1, 2, 3, 4], description="cells"):
            if n == 4:
                time.sleep(0.1)
    assert "cells 75%" in file.getvalue()


def test_paths_are_printed_and_not_interpreted(capsys: pytest.CaptureFixture[str]) -> None:
    from visionpe.utils.console import wide_console

    wide_console().print("written: out [/x] ü [red]/results.csv")
    assert capsys.readouterr().out == "written: out [/x] ü [red]/results.csv\n"
