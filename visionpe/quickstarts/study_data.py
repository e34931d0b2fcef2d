"""What the study and the quickstart measure on each data set. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from visionpe.scaling.options import Protocol


@dataclass(frozen=True)
class StudyData:
    """How one data set is measured.

    Args:
        about: What it is, in a few words.
        resolutions: Of ``visionpe scaling``, by default.
        protocols: How images grow.
        options: Further options of ``visionpe scaling``.
        quick: What replaces ``options`` to try things out.
    """

    about: str
    resolutions: tuple[str, ...]
    protocols: tuple[Protocol, ...] = ("object",)
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--limit", "24", "--auto-images", "12", "--diagnostics", "2", "--batch-size", "12")


STUDY_DATA = {
    "digits": StudyData(
        "handwritten digits, 24 pixels enlarged: no detail appears",
        ("0.5x", "1x", "1.5x", "2x", "3x", "4x", "6x"),
        ("object", "canvas"),
        # 1,296 tokens at 6x cost a hundred times as much as 36: fewer images there, and wider intervals.
        (
            *("--limit", "240", "--limit-from", "3x=120", "4x=48", "6x=24", "--auto-images", "48"),
            *("--diagnostics", "2", "--batch-size", "12"),
        ),
    ),
    # A cell fills its photograph: there is no larger canvas to find it on.
    "elpv": StudyData(
        "solar cells, 32 of their 300 pixels: detail up to 9x",
        ("0.5x", "1x", "1.25x", "1.5x", "2x", "3x", "4x", "6x"),
        options=("--auto-images", "100", "--diagnostics", "2", "--batch-size", "25"),
    ),
    "caltech101": StudyData(
        "natural images of 101 classes, 48 of 160 or more pixels: detail up to 3.3x",
        ("0.5x", "1x", "1.25x", "1.5x", "2x", "2.5x", "3x"),
        options=("--limit", "600", "--auto-images", "100", "--diagnostics", "2", "--batch-size", "25"),
    ),
}


@dataclass(frozen=True)
class QuickstartData:
    """What the quickstart does with one data set.

    Args:
        about: What it is, in a few words.
        encodings: That are trained.
        resolutions: At which they are measured.
        protocols: How images grow.
    """

    about: str
    encodings: tuple[str, ...]
    resolutions: tuple[str, ...]
    protocols: tuple[Protocol, ...] = ("object",)


_DIGITS = QuickstartData(
    "handwritten digits, 24 pixels enlarged",
    ("none", "ape", "rope_mixed", "cpe"),
    ("0.5x", "1x", "1.5x", "2x", "2.5x", "3x"),
    ("object", "canvas"),
)
QUICKSTART_DATA = {
    "elpv": QuickstartData(
        "photographs of solar cells, 32 of their 300 pixels: whole or damaged",
        ("ape", "rope_mixed"),
        ("0.5x", "1x", "1.25x", "1.5x", "2x", "3x"),
    ),
    "digits": _DIGITS,
    "mnist": _DIGITS,
}
