"""A process that has imported everything and forks one that runs a command: its work begins at once.

Reads ``{"argv": [...], "log": FILE}``, one JSON a line; answers with the process's number, and when it ends with its
wait status.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback

# What is imported, and what it runs, prints elsewhere.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

for module in ("visionpe.detection.running.commands", "mmdet.apis", "mmseg.apis", "mmpretrain.apis", "rich.progress"):
    importlib.import_module(module)

from visionpe.cli import main  # noqa: E402
from visionpe.detection.running.runner import load_config  # noqa: E402

load_config("digits/rope_mixed_vit.py")  # and with it what mmpretrain says of its configs


def child(argv: list[str], log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    code = 1
    try:
        code = main(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for line in sys.stdin:
    task = json.loads(line)
    process = os.fork()
    if not process:
        child(task["argv"], task["log"])
    print(process, file=ANSWERS)
    print(os.waitpid(process, 0)[1], file=ANSWERS)
