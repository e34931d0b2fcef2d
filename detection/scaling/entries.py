"""The configs and weights that a sweep over test scales measures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from rich.console import Console

import visionpe
from visionpe.detection.running import runner as setup
from visionpe.detection.running.kinds import kind_name
from visionpe.detection.scaling.config import rescale
from visionpe.detection.scaling.rows import ModelEntry, probe, sha256
from visionpe.scaling.options import ALL, AUTO, DEFAULT, DOWNSCALE, StudyOptions
from visionpe.utils.errors import InputError


def _options(texts: Sequence[str]) -> dict[str, Any]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"--cfg-options {text}: not KEY=VALUE (such as test_dataloader.batch_size=1)")
    reader = argparse.ArgumentParser()
    reader.add_argument("--given", nargs="*", action=DictAction, default={})
    return reader.parse_args(["--given", *texts]).given if texts else {}


def _load(path: str, options: dict[str, Any], launcher: str, first: Config | None) -> tuple[Config, str]:
    """A config that is ready to run, and the text that decides its rows."""
    config = setup.load_config(path, options)
    # The Runner would load what fits and go on with a warning.
    config.load_from, config.resume = None, False
    setup.drop_pretrained(config.model)
    text = repr(config.to_dict())
    if first is None:
        setup.set_launcher(config, launcher)
    else:  # processes are joined once
        config.launcher = launcher
        if first.get("model_wrapper_cfg"):
            config.model_wrapper_cfg = first.model_wrapper_cfg
    return config, text


def choose(model: torch.nn.Module, asked: Sequence[str], controls: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which of the policies asked for a model runs under, and those that do not apply.

    Args:
        model: As built; it is changed.
        asked: ``default``, ``all`` or names, composite and parametrised ones too.
        controls: Run beside them: ``downscale`` or nothing.
    """
    chosen, left = [], []
    for name in asked:
        if name == ALL:
            chosen += [name for name in visionpe.policies(model) if name != DOWNSCALE] or [DEFAULT]
        elif name in (DEFAULT, AUTO):
            chosen.append(name)
        else:
            try:
                visionpe.set_policy(model, name)
                chosen.append(name)
            except ValueError:
                left.append(name)
    names = list(dict.fromkeys(chosen)) or [DEFAULT]
    return [*names, *(name for name in controls if name == DOWNSCALE)], left


def entries_of(asked: StudyOptions, console: Console) -> list[ModelEntry]:
    """What the command line names, tried out.

    Args:
        asked: With ``config checkpoint cfg_options crop launcher policy controls out``.
        console: For notes.

    Raises:
        InputError: If a config, its data, its weights or a policy cannot be used.
    """
    options = _options(asked.cfg_options)
    labels = [Path(path).stem for path in asked.config]
    entries: list[ModelEntry] = []
    left_out: dict[str, list[str]] = {}
    for path, name, label in zip(asked.config, asked.checkpoint, labels):
        if labels.count(label) > 1:
            label = f"{label} {Path(name).parent.name}/{Path(name).stem}"
        checkpoint = Path(setup.check_checkpoint(name))
        config, text = _load(path, options, asked.launcher, entries[0].config if entries else None)
        if asked.crop and kind_name(config.model) != "EncoderDecoder":
            raise InputError(
                f"--crop: {path} has model.type={config.model.get('type')!r}; crops are for mmseg's EncoderDecoder"
            )
        rescale(Config(config.to_dict(), filename=config.filename), 1.0)  # refused before anything is measured
        with console.status(f"{label}: building model and data"):
            images, model = probe(config, checkpoint, asked.out)
        names, left_out[label] = choose(model, asked.policy, asked.controls)
        entries.append(ModelEntry(label, config, checkpoint, sha256(checkpoint), images, tuple(names), text))
    for name in asked.policy:
        if all(name in left for left in left_out.values()):
            allowed = ", ".join([DEFAULT, ALL, *visionpe.policies(model)])
            raise InputError(f"--policy {name}: applies to none of the models; allowed for {label}: {allowed}")
    for label, left in left_out.items():
        if left:
            console.print(f"note: --policy {' '.join(left)} does not apply to {label}", style="yellow", highlight=False)
    return entries
