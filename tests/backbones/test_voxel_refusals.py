"""What is no cloud of voxels is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_voxels import cloud, tiny

from visionpe.sparse import Voxels


def changed(part: str, value: Any) -> Any:
    x = cloud(40)
    return Voxels(**{"features": x.features, "coords": x.coords, "signals": x.signals, part: value(getattr(x, part))})


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (
            "signals",
            lambda t: torch.cat((t[:, :3] * 0.02, t[:, 3:]), 1),
            r"positions lie outside of their cells",
        ),
        ("signals", lambda t: t.half(), r"signals are torch\.float16; allowed: torch\.float32, torch\.float64"),
        ("signals", lambda t: t.long(), r"signals are torch\.int64"),
        ("features", lambda t: t.half(), r"features: torch\.float16; allowed: torch\.float32"),
        ("features", lambda t: t.long(), r"features are torch\.int64; allowed: floating point"),
        ("features", lambda t: t.tolist(), r"features are list; allowed: a tensor"),
        ("coords", lambda t: t * 10**12, r"coords must lie in int32"),
    ],
)
def test_voxels(part: str, value: Any, message: str) -> None:
    model = tiny("crse", "swin3d_s").float()
    assert model(cloud(40)).isfinite().all()
    with pytest.raises((ValueError, TypeError), match=message):
        model(changed(part, value))


def test_what_is_no_voxels() -> None:
    model = tiny("crse", "swin3d_s").float()
    for x in (torch.zeros(3, 4), None, (torch.zeros(3, 6),), "voxels"):
        with pytest.raises(TypeError, match=r"voxels=.*; allowed: Voxels, or \(features, coords, signals\)"):
            model(x)
