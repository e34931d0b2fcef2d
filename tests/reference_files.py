"""The reference files: outputs of the official implementations, with the weights and inputs that gave them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

REFERENCE = Path(__file__).parent / "reference"


def read(name: str) -> tuple[dict, dict, dict, dict]:
    """Weights, inputs, outputs and metadata of a reference file."""
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
        groups: dict[str, dict] = {"model": {}, "input": {}, "output": {}}
        for key in file.keys():  # noqa: SIM118
            group, rest = key.split(".", 1)
            groups[group][rest] = file.get_tensor(key)
        metadata = {k: json.loads(v) for k, v in file.metadata().items()}
    return groups["model"], groups["input"], groups["output"], metadata


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to the tolerance of the reference files."""
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-6)
