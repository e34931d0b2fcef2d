"""The ``visionpe`` command: ``visionpe COMMAND ...``. Here names are looked up; each command is one module."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

# Name -> what --help says. The module of a command has its name; what it needs is imported when it runs.
COMMANDS = {
    "quickstart": "from nothing to a trained comparison in minutes: classification, detection, segmentation or rooms",
    "scaling": "accuracy, speed and memory of models against the input resolution",
    "study": "train eight encodings and measure every resolution policy",
    "look": "attention, features and positional artefacts of a model on your pictures",
    "saliency": "a published saliency model on your photographs, at every resolution and under every policy",
    "train": "train from a config of mmpretrain, mmdet or mmseg, shipped or your own",
    "test": "evaluate weights on the test split of a config",
    "predict": "draw what a trained model sees in pictures",
    "export": "write a model as an ONNX file, checked against onnxruntime",
    "benchmark": "what encodings, backbones and attention among voxels cost",
    "list": "encodings, models, policies and configs",
    "points": "look at a point cloud, or run a model on one",
    "scenes": "write scenes of digits in the layouts of COCO and ADE20K",
}
# But for those that would hide a builtin in this module.
MODULES = {"list": "listing"}


def usage() -> str:
    """What ``visionpe --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: visionpe COMMAND ...",
            "",
            "Position encodings as a swappable part of vision backbones, at any resolution.",
            "",
            "commands:",
            *lines,
            "",
            "`visionpe COMMAND --help` tells more of each, `visionpe --version` the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        The exit code: 0, 1 or 2 for what cannot be done, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from visionpe import __version__

        print(f"visionpe {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; allowed: {', '.join(COMMANDS)}"
        print(f"visionpe: error: unknown command {name!r}{hint}", file=sys.stderr)
        return 2
    return int(import_module(f"visionpe.cli.{MODULES.get(name, name)}").main(rest))
