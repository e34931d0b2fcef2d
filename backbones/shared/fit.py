"""Whether weights fit a model, before any of them is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from visionpe.base import PositionEncoding
from visionpe.utils.errors import MisfitError, first_few
from visionpe.utils.weight_files import StateDict


def check_fit(state: StateDict, model: Any) -> None:
    """Refuse a converted file that does not fit, by what the model says or by its first offending keys.

    The classifier and the input channels may differ: timm adapts those. So may tables that are resized on loading.

    Raises:
        RuntimeError: If keys are missing, left over or of another shape.
    """
    model.check_state(state)
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    given = {k: v for k, v in state.items() if not k.startswith("head.")}
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    stems = model.pretrained_cfg.get("first_conv", "patch_embed.proj")
    stems = (stems,) if isinstance(stems, str) else stems  # of patches of several sizes there are as many
    free = {"patch_embed.proj.weight", *(f"{stem}.weight" for stem in stems)}
    for name, part in model.named_modules():
        if isinstance(part, PositionEncoding):
            free |= {f"{name}.{key}" for key in part.resized_on_load}
    shapes = [
        f"{k} (file {tuple(given[k].shape)}, model {tuple(own[k].shape)})"
        for k in sorted(own.keys() & given.keys() - free)
        if own[k].shape != given[k].shape
    ]
    problems = [
        f"{what}: {first_few(keys)}"
        for what, keys in (
            ("missing from the file", missing),
            ("not in the model", extra),
            ("of another shape", shapes),
        )
        if keys
    ]
    problems += getattr(state, "problems", ())
    if problems:
        raise MisfitError(f"the checkpoint does not fit a {model.description}; {'; '.join(problems)}")


def check_tensors(state: Any) -> None:
    """Refuse what is no state dict.

    Raises:
        MisfitError: Names the first key that holds no tensor.
    """
    if not isinstance(state, Mapping):
        raise MisfitError(f"the checkpoint is {type(state).__name__}; allowed: names and their tensors")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise MisfitError(f"the checkpoint holds {type(value).__name__} at {key!r}; allowed: tensors")


def refuse_missing(keys: Iterable[str], model: Any) -> None:
    """Refuse a file that lacks these.

    Raises:
        RuntimeError: If there are any.
    """
    if missing := sorted(keys):
        raise RuntimeError(
            f"the checkpoint does not fit a {model.description}; missing from the file: {first_few(missing)}"
        )
