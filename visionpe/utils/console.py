"""Consoles that are wide enough for tables where the output is no terminal."""

from __future__ import annotations

from rich.console import Console

FULL_WIDTH = 160  # columns of the study's full table with names of usual length


def wide_console(width: int = FULL_WIDTH) -> Console:
    """The terminal, or so many columns where the output is none."""
    console = Console(markup=False)
    return console if console.is_terminal else Console(width=width, markup=False)
