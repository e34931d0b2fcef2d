"""Devices by name: choosing one, refusing one that cannot be used, and what it is called."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from visionpe.utils.errors import InputError, first_line


def default_device() -> str:
    """``cuda`` where there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def open_device(name: str | None = None) -> torch.device:
    """The device of that name, tried out; by default the GPU where there is one.

    Raises:
        InputError: If it cannot be used.
    """
    name = name or default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: cannot be used ({first_line(error)})") from None
    return device


def device_name(device: torch.device) -> str:
    """What the device is called: the GPU's name, or the model of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
