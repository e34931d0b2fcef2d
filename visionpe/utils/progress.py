"""Progress bars that also speak where the output is no terminal: a line now and then, with what is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from operator import length_hint
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as ProgressTask

# Seconds between two lines where there is no terminal.
INTERVAL = 30.0
# Rich does not draw into a file, and says nothing there until it ends.
DRAWN = (TextColumn("left"), TimeRemainingColumn())


def clock(seconds: float) -> str:
    """``3:07``, or ``1:02:03`` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def line_of(task: ProgressTask) -> str:
    """Where a task is, in one line: ``measuring 42%, 1:10 so far, about 1:37 left``."""
    done = task.completed / task.total if task.total else 0.0
    text = f"{task.description.strip() or 'working'} {100 * done:.0f}%, {clock(task.elapsed or 0)} so far"
    if 0 < done < 1 and task.elapsed:
        text += f", about {clock(task.elapsed * (1 - done) / done)} left"
    return text


class SteadyProgress(Progress):
    """rich's progress bars; where the output is no terminal, a line every half minute instead.

    Args:
        columns: Of the bars; description, bar, share, time so far and time left where none are given.
        console: Where to.
        quiet: Show nothing at all, as all processes but the first should.
        interval: Seconds between two lines where the output is no terminal.
        kwargs: Further ones of ``rich.progress.Progress``.
    """

    def __init__(
        self,
        *columns: str | ProgressColumn,
        console: Console,
        quiet: bool = False,
        interval: float = INTERVAL,
        **kwargs: Any,
    ) -> None:
        if not columns:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                *DRAWN,
            )
        self._speaks = not console.is_terminal and not quiet and not console.quiet
        super().__init__(*columns, console=console, disable=not console.is_terminal or quiet, **kwargs)
        self._interval, self._ended = interval, threading.Event()
        self._speaker: threading.Thread | None = None

    def track(self, sequence: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """See rich's: what is done is told item by item, as its own thread looks only while bars are drawn."""
        if not self._speaks:
            yield from super().track(sequence, *args, **kwargs)
            return
        total = kwargs.get("total") or length_hint(sequence) or None
        task = self.add_task(kwargs.get("description", "Working..."), total=total)
        for item in sequence:
            yield item
            self.advance(task)

    def start(self) -> None:
        super().start()
        if self._speaks and self._speaker is None:
            self._ended.clear()
            self._speaker = threading.Thread(target=self._speak, daemon=True)
            self._speaker.start()

    def stop(self) -> None:
        self._ended.set()
        if self._speaker is not None:
            self._speaker.join()
            self._speaker = None
        super().stop()

    def _speak(self) -> None:
        due = time.monotonic() + self._interval
        while not self._ended.wait(max(due - time.monotonic(), 0.0)):
            due += self._interval
            running = [task for task in self.tasks if task.started and not task.finished and task.visible]
            for task in running[:1]:  # the first says how far everything is
                self.console.print(line_of(task), highlight=False, markup=False, soft_wrap=True)
