"""Files written whole, memory and its end, and errors in one line."""

from __future__ import annotations

import os

import pytest
import torch

from visionpe.utils import files
from visionpe.utils.errors import first_line
from visionpe.utils.files import write_atomic
from visionpe.utils.memory import allocated_peak, is_out_of_memory, peak_memory


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    write_atomic(path, "old")

    def fail(*args):
        assert path.read_text() == "old"  # the content is complete elsewhere before it takes the name
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.json"]


def test_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("not enough memory: you tried to allocate 10 bytes"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_allocated_peak_counts_what_is_held_at_one_time():
    def work():
        first = torch.ones(1000, 1000)
        del first
        return torch.ones(500, 1000) + torch.ones(500, 1000)  # three tensors of 2 MB

    assert allocated_peak(work, torch.device("cpu")) == 6e6
    assert allocated_peak(lambda: torch.ones(2_000_000), torch.device("cpu")) == 8e6
    assert allocated_peak(work, torch.device("meta")) is None


def test_peak_memory_sees_what_was_freed_again():
    for megabytes in (200, 50):  # the second peak is smaller than the first
        with peak_memory(torch.device("cpu")) as peak:
            block = torch.ones(megabytes * 250_000)
            del block
        assert peak["bytes"] == pytest.approx(megabytes * 1e6, rel=0.2)


def test_first_line():
    assert first_line(RuntimeError("\n one\n\n two\n three")) == "one two"
    assert first_line(MemoryError()) == "MemoryError"
    assert len(first_line(RuntimeError("x" * 1000))) == 200
