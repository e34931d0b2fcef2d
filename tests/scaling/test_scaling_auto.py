"""``auto`` in the study: its candidates, its images, and that a choice is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import visionpe
from visionpe.policy import choose
from visionpe.policy.choose import first_round, second_round
from visionpe.scaling.auto import PolicyChooser
from visionpe.scaling.models import ModelEntry
from visionpe.scaling.open_images import open_source
from visionpe.scaling.plan import Task
from visionpe.scaling.store import Store


def entry() -> ModelEntry:
    kwargs = {"img_size": 24, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "depth": 1}
    return ModelEntry("rope_vit_ti", {**kwargs, "num_heads": 1}, seed=0, trained=(24, 24), data="digits")


def test_rounds() -> None:
    model = entry().build(weights=False)
    first = first_round(model)
    assert first[0] == "default"
    assert {"interpolate", "rescale", "rescale(0.25)", "rescale(0.75)", "ntk", "yarn"} <= set(first)
    assert "extrapolate" not in first  # as built
    assert {"yarn+temperature", "yarn+temperature(-1)", "yarn+decay"} <= set(second_round(model, "yarn"))
    assert "temperature" in second_round(model, "default")
    for name in (*first, *second_round(model, "ntk")):
        visionpe.set_policy(model, name)


def test_a_choice_is_kept_and_reads_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, source = entry(), open_source("digits", "val")
    source.labels = torch.full_like(source.labels, -1)
    chooser = PolicyChooser(source, 12, (), 0, 6, 0, torch.device("cpu"), Store(tmp_path))
    model, spec = one.build(), one.view("digits", 0)
    task = Task(one, "auto", "object", (36, 36))
    seen, forward = [], model.forward
    model.forward = lambda x: seen.append(tuple(x.shape[2:])) or forward(x)
    choice = chooser(task, model, spec)
    # Both batches of both views: of the candidates, and of the images at the trained size last.
    assert seen[:-4] == [(36, 36)] * 4 * (len(choice.scores) - 1)
    assert seen[-4:] == [(24, 24)] * 4
    assert choice.policy in choice.scores
    assert len(choice.scores) > 10
    monkeypatch.setattr(PolicyChooser, "_choose", lambda *args: pytest.fail("chosen anew"))
    assert chooser(task, model, spec) == choice
    native = chooser(Task(one, "auto", "object", (24, 24)), model, spec)
    assert (native.policy, native.scores) == ("default", {})


def test_a_policy_that_cannot_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = entry()
    chooser = PolicyChooser(open_source("digits", "val"), 9, ((1.2, 8),), 0, 4, 0, torch.device("cpu"), Store(tmp_path))
    model, own = one.build(), visionpe.set_policy

    def refuse(model: torch.nn.Module, policy: str) -> torch.nn.Module:
        own(model, policy)
        model.forward = (lambda x: 1 / 0) if "ntk" in policy else type(model).forward.__get__(model)
        return model

    monkeypatch.setattr(choose, "set_policy", refuse)
    choice = chooser(Task(one, "auto", "canvas", (36, 24)), model, one.view("digits", 0))
    assert chooser.images(Task(one, "auto", "canvas", (36, 24))) == 4
    assert chooser.images(Task(one, "auto", "canvas", (24, 24))) == 9
    assert "ntk" not in choice.scores
    assert "yarn" in choice.scores
