"""What the commands share: arguments that several have, and how a program ends."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from visionpe.utils.errors import IncompleteError, InputError
from visionpe.utils.parsing import literal


def make_parser(prog: str, description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser that prints its texts as they are written."""
    return argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def borrowed_action(place: str) -> type[argparse.Action]:
    """An argparse action of another package, imported where its option is used: --help does not wait for it.

    Args:
        place: ``module:Class``.
    """

    class Borrowed(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            module, name = place.split(":")
            action = getattr(import_module(module), name)(self.option_strings, self.dest)
            for text in values:
                key, _, value = text.partition("=")
                if not (key.strip() and value):
                    parser.error(f"{option_string} {text}: not KEY=VALUE")
            action(parser, namespace, values, option_string)

    return Borrowed


class _Trust(argparse.Action):
    """Lets files run code, in this process and those that it starts."""

    def __call__(self, *_: Any) -> None:
        os.environ["VISIONPE_TRUST_CHECKPOINTS"] = "1"


def trust_option(p: argparse.ArgumentParser) -> None:
    """``--trust-checkpoints``, off by default."""
    p.add_argument(
        "--trust-checkpoints",
        action=_Trust,
        nargs=0,
        default=argparse.SUPPRESS,
        help="read old checkpoints that hold more than weights: whatever code is in them is run",
    )


def config_option(p: argparse.ArgumentParser, example: str) -> None:
    """``--cfg-options``, as OpenMMLab's tools have it."""
    p.add_argument(
        "--cfg-options",
        nargs="+",
        action=borrowed_action("mmengine.config:DictAction"),
        default={},
        metavar="KEY=VALUE",
        help=f"override config entries: {example}",
    )


def run_arguments(p: argparse.ArgumentParser, example: str) -> None:
    """What training and testing by config both take.

    Args:
        p: The parser.
        example: Of ``--cfg-options``.
    """
    p.add_argument("--work-dir", metavar="DIR", help="where logs and weights go (default: work_dirs/<config>)")
    p.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="how several processes are started; 'pytorch' is torchrun, with gloo where there is no GPU",
    )
    p.add_argument("--seed", type=int, help="random seed (default: the config's)")
    config_option(p, example)
    trust_option(p)
    # torch.distributed.launch passes the rank as an argument, torchrun in the environment.
    p.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def key_values(flag: str, texts: Sequence[str], example: str = "num_classes=10") -> dict[str, Any]:
    """``KEY=VALUE ...`` to a dictionary; a value that is no Python literal is text.

    Raises:
        InputError: If one has no such form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not (key.strip() and separator):
            raise InputError(f"{flag} {text}: not KEY=VALUE (such as {example})")
        found[key] = literal(value)
    return found


def small_vit_parser(
    prog: str, description: str | None, epilog: str | None = None, *, encodings: Sequence[str], seeds: int, out: str
) -> argparse.ArgumentParser:
    """The command line of a program that trains small ViTs on data by name.

    Args:
        prog, description, epilog: Of the program.
        encodings, seeds, out: Defaults; no encodings for those of the data.
    """
    p = make_parser(prog, description, epilog)
    p.add_argument(
        "--encodings",
        nargs="+",
        default=list(encodings),
        metavar="NAME",
        help="those with a configs/<data>/<name>_vit.py (default: "
        + (" ".join(encodings) or "those of the data, see below")
        + ")",
    )
    p.add_argument(
        "--seeds", type=int, default=seeds, metavar="N", help="trainings of each encoding (default: %(default)s)"
    )
    p.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="(default: %(default)s)")
    p.add_argument(
        "--jobs", type=int, default=cores(), metavar="N", help="processes at once (default: cores, %(default)s)"
    )
    p.add_argument(
        "--epochs", type=int, metavar="N", help="stop after N epochs of the config's schedule, to try things out"
    )
    return p


class Terminated(BaseException):
    """SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM inside is an exception, so that what was started is ended and what was begun is cleaned up."""

    def handler(*_: Any) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(work: Callable[[], object], kept: str = "the same command goes on from there") -> int:
    """Run ``work``: its exit code or 0; 1 where parts failed, 2 for bad input or failed training, 130, 143 when ended.

    Args:
        work: What the program does.
        kept: What an interrupted user may want to know.
    """
    try:
        with terminable():
            code = work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except IncompleteError as error:
        print(f"incomplete: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {kept}", file=sys.stderr)
        return 130
    except Terminated:
        print(f"terminated: {kept}", file=sys.stderr)
        return 143
    return code if isinstance(code, int) else 0
