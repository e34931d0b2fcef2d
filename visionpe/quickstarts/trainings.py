"""Several trainings at once, each a process or a job of its own, followed by progress bars."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from visionpe.quickstarts.executors import Executor, LocalExecutor, Work
from visionpe.utils.errors import InputError
from visionpe.utils.progress import SteadyProgress


@dataclass(frozen=True)
class Training:
    """One run of ``visionpe train``.

    Args:
        name: For the progress bar.
        config: The config file.
        directory: Its work directory; ``train.log`` in it receives what the process prints.
        seed: Random seed.
        epochs: Of the whole training.
        options: Passed on as ``--cfg-options``, each ``key=value``.
        unit: What ``epochs`` counts, as the log calls it: ``epoch`` or ``iter``.
        exported: The run leaves its model as files for timm too; never where it counts iterations.
    """

    name: str
    config: Path
    directory: Path
    seed: int
    epochs: int
    options: tuple[str, ...] = ()
    unit: str = "epoch"
    exported: bool = True

    @property
    def product(self) -> Path:
        """The file that a finished run leaves, written last."""
        exported = self.exported and self.unit == "epoch"
        return self.directory / ("model.json" if exported else f"{self.unit}_{self.epochs}.pth")

    @property
    def finished(self) -> bool:
        """Whether the run left its model."""
        whole = self.product.suffix == ".pth" or (self.directory / "model.safetensors").is_file()
        return self.product.is_file() and whole

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.directory / "train.log"

    def command(self) -> list[str]:
        """The command line."""
        command = [sys.executable, "-m", "visionpe", "train", str(self.config), "--work-dir", str(self.directory)]
        command += ["--resume", "--seed", str(self.seed)]
        return command + (["--cfg-options", *self.options] if self.options else [])

    def done(self) -> tuple[int, float | None]:
        """Epochs (or iterations) done and the latest training loss, read from the newest ``scalars.json``."""
        files = sorted(self.directory.glob("*/vis_data/scalars.json"))
        epoch, loss = 0, None
        for line in files[-1].read_text().splitlines() if files else []:
            try:
                scalars = json.loads(line)
            except ValueError:  # the last line is being written
                continue
            epoch, loss = scalars.get(self.unit, epoch), scalars.get("loss", loss)
        return int(epoch), loss

    def tail(self, lines: int = 12) -> str:
        """The last lines that the process printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.is_file() else ""


def train(
    trainings: Sequence[Training],
    console: Console,
    *,
    at_once: int,
    interval: float = 0.5,
    executor: Executor | None = None,
) -> None:
    """Run every training that is not finished.

    Args:
        trainings: What to run.
        console: For the progress bars.
        at_once: Processes at a time.
        interval: Seconds between two looks at them.
        executor: Where they run; None for processes here.

    Raises:
        InputError: If one of them fails; its last lines are printed and the others are stopped, to be resumed by the
            next call.
    """
    waiting = [training for training in trainings if not training.finished]
    if ready := len(trainings) - len(waiting):
        console.print(f"{ready} of {len(trainings)} trainings already finished", highlight=False)
    if not waiting:
        return
    executor = executor or LocalExecutor()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[unit]} {task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    running: dict[TaskID, tuple[Training, Work]] = {}
    with SteadyProgress(*columns, console=console, speed_estimate_period=3600) as progress:
        total = sum(training.epochs for training in waiting)
        unit = waiting[0].unit
        overall = progress.add_task("all trainings", total=total, loss="", unit=unit, visible=len(waiting) > 1)
        bars = {
            progress.add_task(training.name, total=training.epochs, start=False, loss="", unit=unit): training
            for training in waiting
        }
        queue = list(bars)
        try:
            while queue or running:
                while queue and len(running) < at_once:
                    bar = queue.pop(0)
                    running[bar] = (bars[bar], executor.start(bars[bar].command(), bars[bar].log))
                    progress.start_task(bar)
                time.sleep(interval)
                for bar, (training, work) in list(running.items()):
                    code = work.poll()
                    epoch, loss = training.done()
                    text = "" if loss is None else f"loss {loss:.2f}"
                    progress.update(bar, completed=training.epochs if code == 0 else epoch, loss=text)
                    if code is None:
                        continue
                    del running[bar]
                    if code or not training.finished:
                        progress.stop()
                        console.print(training.tail(), style="dim", highlight=False, markup=False)
                        how = f"ended with exit code {code}" if code else f"left no {training.product.name}"
                        raise InputError(
                            f"the training of {training.name} {how}; the whole log: {training.log}. The same command "
                            "resumes it and the others"
                        )
                    progress.stop_task(bar)
                progress.update(overall, completed=sum(task.completed for task in progress.tasks[1:]))
        finally:
            for _, work in running.values():
                work.stop()
            for _, work in running.values():
                work.join()
