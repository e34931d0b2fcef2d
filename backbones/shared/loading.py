"""Loading published checkpoints: any layout that a family knows, and a clear refusal of a file that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from timm.layers import resample_patch_embed
from torch import Tensor, nn

from visionpe.base import PositionEncoding

StateDict = dict[str, Tensor]

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module")


def unwrapped(checkpoint: dict[str, Any]) -> StateDict:
    """The state dict inside what training code wraps around it."""
    for key in WRAPPERS:
        if isinstance(checkpoint.get(key), dict):
            return unwrapped(checkpoint[key])
    return checkpoint


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def check_fit(state: StateDict, model: Any) -> None:
    """Refuse a converted file that does not fit, by its first offending keys.

    The classifier and the input channels may differ: timm adapts those. So may tables that are resized on loading.

    Raises:
        RuntimeError: If keys are missing, left over or of another shape.
    """
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    given = {k: v for k, v in state.items() if not k.startswith("head.")}
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    free = {model.pretrained_cfg.get("first_conv", "patch_embed.proj") + ".weight", "patch_embed.proj.weight"}
    for name, part in model.named_modules():
        if isinstance(part, PositionEncoding):
            free |= {f"{name}.{key}" for key in part.resized_on_load}
    shapes = [
        f"{k} (file {tuple(given[k].shape)}, model {tuple(own[k].shape)})"
        for k in sorted(own.keys() & given.keys() - free)
        if own[k].shape != given[k].shape
    ]
    problems = [
        f"{what}: {_listed(keys)}"
        for what, keys in (
            ("missing from the file", missing),
            ("not in the model", extra),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise RuntimeError(f"the checkpoint does not fit a {model.description}; {'; '.join(problems)}")


def fit_patches(weight: Tensor, patch_size: Sequence[int]) -> Tensor:
    """The projection of the patches, ``(dim, channels, height, width)``, for patches of another size."""
    size = list(patch_size)
    return weight if list(weight.shape[-2:]) == size else resample_patch_embed(weight, size)


def fit_pyramid(state: StateDict, model: Any) -> StateDict:
    """What a pyramid takes of a file in our layout that holds a classifier.

    With norms for the features the last one is the final norm of the file, the others stay at identity. Stages, norms
    and classifier that the model has no longer are left out. ``model.depths`` tells how many stages it was built with.
    """
    out = dict(state)
    last = len(model.depths) - 1
    if model.norms is not None and "norm.weight" in out and not any(key.startswith("norms.") for key in out):
        for i, norm in enumerate(model.norms):
            out[f"norms.{i}.weight"] = torch.ones_like(norm.weight)
            out[f"norms.{i}.bias"] = torch.zeros_like(norm.bias)
        out |= {f"norms.{last}.{name}": out[f"norm.{name}"] for name in ("weight", "bias")}
    gone = [f"{name}.{i}." for name in ("stages", "norms") for i in range(len(model.stages), last + 1)]
    if isinstance(model.norm, nn.Identity):
        gone.append("norm.")
    if not model.num_classes:
        gone.append("head.")
    return {key: value for key, value in out.items() if not key.startswith(tuple(gone))}


class LoadsPublished(nn.Module):
    """Mixin: ``load_state_dict`` takes our layout and every one that :meth:`convert_state` knows."""

    family: ClassVar[str] = ""
    pretrained_cfg: ClassVar[dict[str, Any]] = {}  # timm sets its own

    @property
    def description(self) -> str:
        """The model in a few words, for messages."""
        names = dict.fromkeys(m.name for m in self.modules() if isinstance(m, PositionEncoding))
        return f"{self.family} with pos_encoding={'+'.join(names)!r}"

    def convert_state(self, state: StateDict) -> StateDict:
        """A published state dict in our layout; ours stays as it is. Each family's ``weights.convert`` does the work.

        Args:
            state: Key -> tensor, as published, without wrappers.

        Returns:
            A new dict in our layout.

        Raises:
            RuntimeError: If a table has no shape that the model could have.
        """
        return state

    def to_modules(self, state: StateDict) -> StateDict:
        """Our layout under the names of the modules, where these differ."""
        return state

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Let policies measure from another size, pixels. Default: they stay."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load weights in our layout or a published one.

        Raises:
            RuntimeError: If ``strict`` and the file does not fit; the message names the first offending keys.
        """
        if strict:
            check_fit(self.convert_state(dict(state_dict)), self)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {k: state_dict.pop(k) for k in list(state_dict) if k.startswith(prefix)}
        converted = self.to_modules(self.convert_state({k[len(prefix) :]: v for k, v in own.items()}))
        state_dict.update({prefix + k: v for k, v in converted.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def checkpoint_filter_fn(checkpoint: dict[str, Any], model: Any, strict: bool = True) -> StateDict:
    """Prepare a published checkpoint for ``model``; used by ``pretrained=True``.

    Policies measure from the size that the weights were trained at, whatever size the model is built for.

    Args:
        checkpoint: The file's content, wrapped or not.
        model: The model that will load it.
        strict: Refuse a file that does not fit.

    Returns:
        A state dict in our layout.

    Raises:
        RuntimeError: If the file does not fit.
    """
    source = unwrapped(checkpoint)
    state = model.convert_state(source)
    if strict:
        check_fit(state, model)
    weight, size = source.get("patch_embed.proj.weight"), model.pretrained_cfg.get("input_size")
    if weight is not None and weight.ndim == 4 and size:
        model.set_trained_size(tuple(size[-2:]), tuple(weight.shape[-2:]))
    return state
