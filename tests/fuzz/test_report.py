"""Last: how many calls ended in what, and whether any ended badly."""

from __future__ import annotations

import fuzz_outcomes
import pytest


@pytest.mark.skipif(not fuzz_outcomes.LONG, reason="of a long run: VISIONPE_FUZZ=10000 pytest tests/fuzz")
def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("", *fuzz_outcomes.report(), sep="\n")
    assert not fuzz_outcomes.FAULTS, "faults are listed above"
