"""What is resumed, or started from, must fit: refused before anything runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from visionpe.detection.running.checkpoint import read_checkpoint
from visionpe.utils.errors import InputError, first_few
from visionpe.utils.file_kinds import warn_of_nonfinite

# Of a classifier or a backbone: what may change from one start to the next without it being another model.
FREE = {"loss", "train_cfg", "test_cfg", "data_preprocessor", "init_cfg", "pretrained", "checkpoint_path", "with_cp"}
FREE |= {"autocast", "frozen_stages", "drop_path_rate", "_scope_", "type"}
# Where another number of classes is a reason to start from a file, and not to refuse it.
HEADS = ("head", "classifier", "fc_cls", "fc_reg")


def _value(node: ast.expr) -> Any:
    """A literal, or calls of ``dict`` with literals: configs as mmengine prints them. Nothing is run."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    return ast.literal_eval(node)


def model_of_text(text: str) -> dict[str, Any] | None:
    """The ``model`` of a config that mmengine wrote into a checkpoint; None where it cannot be read."""
    try:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "model":
                found = _value(node.value)
                return found if isinstance(found, dict) else None
    except (SyntaxError, ValueError):
        pass
    return None


def _plain(value: Any) -> Any:
    """Lists for tuples, as text has no other."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _differences(before: Mapping, now: Mapping) -> Iterator[str]:
    for part in ("", "backbone"):
        old, new = (_plain(config.get(part) or {}) if part else _plain(config) for config in (before, now))
        if "model_name" not in new and "model_name" not in old:
            continue  # a detector says nothing of a timm model itself
        for key in sorted((old.keys() | new.keys()) - FREE - {"backbone"}):
            if old.get(key) != new.get(key):
                yield f"model.{f'{part}.' if part else ''}{key} was {old.get(key)!r} and is {new.get(key)!r}"


def _misfits(model: nn.Module, state: Mapping[str, Any]) -> list[str]:
    own = model.state_dict()
    state = {name.removeprefix("module."): value for name, value in state.items()}
    found = [f"{name} is missing" for name in own if name not in state]
    found += [f"{name} is left over" for name in state if name not in own]
    for name in own.keys() & state.keys():
        if getattr(state[name], "shape", None) != own[name].shape:
            given = tuple(getattr(state[name], "shape", ()))
            found.append(f"{name} is {given}, the model has {tuple(own[name].shape)}")
    return sorted(found)


def _of_backbone(model: nn.Module, state: Mapping[str, Any]) -> bool:
    """Whether a file holds the backbone of a model under names of its own: that of a classifier."""
    backbone = getattr(model, "backbone", None)
    names = {name.removeprefix("model.") for name in backbone.state_dict()} if isinstance(backbone, nn.Module) else ()
    return 2 * sum(name.removeprefix("module.").removeprefix("model.") in names for name in state) > len(names) > 0


def check_start(model: nn.Module, config: Config) -> None:
    """Refuse ``load_from`` where it cannot be resumed or started from.

    To resume, every tensor must fit and the model must be the one that was trained. To start from other weights, heads
    may differ: they are for other classes.

    Args:
        model: The model, without wrappers.
        config: With ``load_from`` and ``resume``.

    Raises:
        InputError: If it does not fit; says how the models differ, or names the first tensors.
    """
    path = config.get("load_from")
    if not path:
        return
    content = read_checkpoint(path)
    state = content.get("state_dict", content)
    if config.get("resume"):
        before = model_of_text(str((content.get("meta") or {}).get("cfg", "")))
        changed = list(_differences(before, config.model)) if before else []
        if changed:
            raise InputError(f"--resume {path}: another model was trained there: {first_few(changed, separator='; ')}")
    warn_of_nonfinite(state, path)
    found = _misfits(model, state)
    if config.get("resume"):
        if found:
            raise InputError(f"--resume {path}: does not fit the model: {first_few(found, separator='; ')}")
        if not isinstance(content.get("meta"), Mapping):
            raise InputError(f"--resume {path}: holds weights alone; to start from them, load_from={path}")
        return
    found = [text for text in found if not any(word in text.split(" is ")[0] for word in HEADS)]
    if found:
        advice = f"; to start its backbone: model.backbone.init_cfg=dict(type='Pretrained', checkpoint={path!r})"
        raise InputError(
            f"load_from={path!r}: does not fit the model: {first_few(found, separator='; ')}; heads alone may differ"
            + (advice if _of_backbone(model, state) else "")
        )
