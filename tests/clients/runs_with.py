"""Try other people's programs on our models and write what came of it: ``python tests/clients/runs_with.py``.

``--timm FOLDER`` is a checkout of timm's repository, whose scripts and test-suite are in no package.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAD = """# Runs with

What was tried with other people's programs, on {models} models of {families} families with an encoding of each kind, at
small sizes, on the CPU. Written by `make runs-with`, which installs the libraries apart from those of the project.

| library | version | what was run | result |
|---|---|---|---|
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a Markdown file; default: print the table")
    parser.add_argument("--only", nargs="+", help="libraries")
    parser.add_argument("--timm", type=Path, help="a checkout of timm's repository")
    given = parser.parse_args()

    import hugging_face
    import libraries
    import openmmlab_tools
    import pytorch
    import timm_scripts
    from checks import CHECKS, ENCODINGS, run

    assert all((hugging_face, libraries, pytorch))  # each put its checks on the list
    rows = []

    def take(row: dict[str, str]) -> None:
        rows.append(row)
        print(
            "  ".join((row["library"], row["version"], row["what"], "->", row["result"])), file=sys.stderr, flush=True
        )

    for library, what, function in (*CHECKS, *timm_scripts.checks(given.timm)):
        if not given.only or library in given.only:
            take(run(library, what, function))
    if not given.only or any(name.startswith("mm") for name in given.only):
        for row in openmmlab_tools.rows():
            take(row)
    text = HEAD.format(models=sum(map(len, ENCODINGS.values())), families=len(ENCODINGS)) + "".join(
        "| {library} | {version} | {what} | {result} |\n".format(**{k: v.replace("|", "/") for k, v in row.items()})
        for row in rows
    )
    if given.out:
        from visionpe.utils.files import write_atomic

        write_atomic(given.out, text.encode())
    else:
        print(text)
    # What does not run of OpenMMLab's does not with other models either: docs/openmmlab.md tells why.
    broken = [row for row in rows if not row["result"].startswith("works") and not row["library"].startswith("mm")]
    return int(bool(broken))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main())
