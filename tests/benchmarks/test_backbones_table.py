"""Every encoding in every backbone: built, run forward and backward at a size no window divides, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ENCODINGS

from visionpe.benchmarks import backbones_table
from visionpe.cli import listing

PAGE = Path(__file__).parents[2] / "docs" / "encodings.md"


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, str]]:
    return {name: {} for name in ENCODINGS}


@pytest.mark.parametrize("family", backbones_table.FAMILIES)
def test_cells(family: str, found: dict[str, dict[str, str]]) -> None:
    text = PAGE.read_text().split(backbones_table.MARKS[0])[1].split(backbones_table.MARKS[1])[0]
    cells = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    lines = {first.strip(" `"): rest for _, first, *rest in cells}
    column = list(backbones_table.FAMILIES).index(family)
    for name in ENCODINGS:
        cell = backbones_table.check(name, family)
        found[name][family] = cell
        stands = lines[name][column].strip()
        assert (stands == "✓") == (cell == backbones_table.FITS), f"{name} in {family}: the page says {stands}, {cell}"
    assert set(lines) == set(ENCODINGS)


def test_refusals_have_a_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = backbones_table.markdown({"a": {"ViT": "yes", "Swin": "it cannot"}, "b": {"ViT": "yes", "Swin": "yes"}})
    assert table.splitlines() == [
        "| | ViT | Swin |", "|---|---|---|", "| `a` | ✓ | no (1) |", "| `b` | ✓ | ✓ |", "", "1. it cannot",
    ]  # fmt: skip


def test_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(backbones_table, "rows", lambda: {"a": {"ViT": "yes"}})
    first, last = backbones_table.MARKS
    file = tmp_path / "page.md"
    file.write_text(f"before\n{first}\nold\n{last}\nafter\n")
    assert listing.main(["backbones", "--write", str(file)]) == 0
    assert file.read_text() == f"before\n{first}\n| | ViT |\n|---|---|\n| `a` | ✓ |\n{last}\nafter\n"
    file.write_text("nothing")
    assert listing.main(["backbones", "--write", str(file)]) == 2
    assert "it must hold" in capsys.readouterr().err
    assert file.read_text() == "nothing"


def test_failures_are_no_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones_table.FAMILIES, "ViT", ("none_vit_ti", {"depth": 2}))  # a class token pools
    with pytest.raises(RuntimeError, match="lepe in ViT: no gradient reaches"):
        backbones_table.check("lepe", "ViT")
