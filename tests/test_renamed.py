"""Modules and names that moved: the old ones import, and say where they went."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from inspect import ismodule

import pytest

from visionpe._renamed import MODULES, NAMES

HEAVY = ("detection", "scaling")


@pytest.mark.parametrize("old", [name for name in MODULES if not name.startswith(HEAVY)])
def test_an_old_module(old: str) -> None:
    sys.modules.pop(f"visionpe.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"visionpe.{old} has moved to visionpe.{MODULES[old]}$"):
        found = import_module(f"visionpe.{old}")
    new = import_module(f"visionpe.{MODULES[old]}")
    names = getattr(new, "__all__", None) or [
        n for n, value in vars(new).items() if not (n.startswith("_") or ismodule(value))
    ]
    assert all(getattr(found, name) is getattr(new, name) for name in names)
    with pytest.raises(AttributeError):
        found.no_such_name  # noqa: B018


def test_old_names() -> None:
    from visionpe.policy.grammar import PolicyTerm
    from visionpe.policy.holder import HasPolicy

    sys.modules.pop("visionpe.adapting", None)
    with pytest.warns(DeprecationWarning, match="adapting has moved"):
        from visionpe.adapting import Adapts, Choice
    assert (Adapts, Choice) == (HasPolicy, PolicyTerm)
    assert {old for old, _ in NAMES} <= MODULES.keys()
    for (module, old), (place, new) in NAMES.items():
        assert getattr(import_module(f"visionpe.{module}"), old) is getattr(import_module(f"visionpe.{place}"), new)


def test_what_a_user_may_have_written() -> None:
    """In a process of its own, where nothing is imported yet, and warnings are errors but for ours."""
    code = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "visionpe.* has moved to", DeprecationWarning)
from visionpe.resize import resize_table, ntk
from visionpe.resize.tables import resize_map
import visionpe.rotary, visionpe.wrappers.dropped
from visionpe.encodings import rpb
from visionpe.encodings.ape import AbsolutePositionEmbedding
from visionpe.backbones.vit import VisionTransformer
from visionpe.backbones.vit_models import rope_vit_b
from visionpe.backbones.swin3d_unet import Swin3DUNet
from visionpe.attention import attend
from visionpe.policy import set_policy
assert visionpe.rotary.RotaryEncoding and rpb.RelativePositionBias and visionpe.resize.maps.stretch
assert visionpe.encodings.fire.Fire and visionpe.kernels.math
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_old_names_of_detection() -> None:
    with pytest.warns(DeprecationWarning, match=r"visionpe\.detection\.ops has moved"):
        from visionpe.detection.ops import install
    from visionpe.detection.operators import install as now

    assert install is now
