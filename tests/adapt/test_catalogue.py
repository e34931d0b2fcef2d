"""Every pretrained name of timm's whose class is known adapts."""

from __future__ import annotations

import pytest
import timm

from visionpe.backbones.adapt.adapting import may_adapt
from visionpe.backbones.adapt.catalogue import catalogue, look_up
from visionpe.cli.listing import main

# Of the families that are taken over.
LEAST = 600
# One in so many is looked up in the short suite.
SAMPLED = 24


def test_what_is_said_of_a_name() -> None:
    entry = look_up("vit_small_patch16_dinov3.lvd1689m")
    assert (entry.family, entry.encoding, entry.adaptable) == ("Eva", "rope_norm", True)
    assert entry.policies[0] == "interpolate"
    assert not look_up("resnet18.a1_in1k").adaptable
    assert "ResNet" in look_up("resnet18.a1_in1k").why_not


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timm", "vit_small_patch16_dinov3*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("vit_small_patch16_dinov3")
    assert lines[-1] == f"{len(lines) - 1} of {len(lines) - 1} adapt"
    assert main(["timm", "no_such_*"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.long), SAMPLED])
def test_every_pretrained_name_of_the_families(step: int) -> None:
    names = [name for name in timm.list_models(pretrained=True) if may_adapt(name)]
    assert len(names) >= LEAST
    entries = list(catalogue(names[::step]))
    refused = {entry.name: entry.why_not for entry in entries if not entry.adaptable}
    assert not refused, refused
