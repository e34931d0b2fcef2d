"""The notebooks run, cell by cell, and carry no outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    try:
        for cell in json.loads(file.read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert not cell["outputs"]
                assert cell["execution_count"] is None
                exec("".join(cell["source"]), space)
        assert pyplot.get_fignums()
    finally:
        pyplot.close("all")
