"""Loading published checkpoints: any layout that a family knows, and a clear refusal of a file that does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from timm.layers import resample_patch_embed
from timm.models import resolve_pretrained_cfg
from torch import Tensor, nn

from visionpe.backbones.shared.fit import check_fit, check_tensors
from visionpe.backbones.shared.saving import encoding_arguments
from visionpe.backbones.shared.window_tables import take_window_tables
from visionpe.base import PositionEncoding
from visionpe.composition import Composition
from visionpe.graphs import Unscriptable
from visionpe.policy.sizes import as_size
from visionpe.utils.errors import MisfitError
from visionpe.utils.weight_files import StateDict, Weights, unwrapped


def fit_patches(weight: Tensor, patch_size: Sequence[int]) -> Tensor:
    """The projection of the patches, ``(dim, channels, height, width)``, for patches of another size."""
    size = list(patch_size)
    return weight if list(weight.shape[-2:]) == size else resample_patch_embed(weight, size)


def fit_pyramid(state: StateDict, model: Any) -> StateDict:
    """What a pyramid takes of a file in our layout that holds a classifier.

    With norms for the features the last one is the final norm of the file, the others stay at identity. Stages, norms
    and classifier that the model has no longer are left out. ``model.depths`` tells how many stages it was built with.
    Where windows grow, tables keep the size of the file's.
    """
    take_window_tables(state, model)
    out = dict(state)
    last = len(model.depths) - 1
    if model.norms is not None and "norm.weight" in out and not any(key.startswith("norms.") for key in out):
        for i, norm in enumerate(model.norms):
            out |= {f"norms.{i}.{name}": torch.full_like(p, name == "weight") for name, p in norm.named_parameters()}
        out |= {f"norms.{last}.{name}": out[f"norm.{name}"] for name in ("weight", "bias")}
    gone = [f"{name}.{i}." for name in ("stages", "norms") for i in range(len(model.stages), last + 1)]
    gone += [f"norms.{i}." for i, norm in enumerate(model.norms or ()) if not any(True for _ in norm.parameters())]
    if isinstance(model.norm, nn.Identity):
        gone.append("norm.")
    if not model.num_classes:
        own = {f"head.{key}" for key in model.head.state_dict()}
        gone += [key for key in out if key.startswith("head.") and key not in own]
    return {key: value for key, value in out.items() if not key.startswith(tuple(gone))}


def renamed(state: StateDict, rules: Iterable[tuple[str, str]], *, mark: str, holder: str = "backbone.") -> StateDict:
    """A published state dict under our names, by the first rule that fits the beginning of each key.

    Args:
        state: As published, or in our layout, which stays as it is.
        rules: Regular expressions of beginnings, and what stands there in our words.
        mark: A key that tells the published layout.
        holder: Prefix of a backbone in the file of a detector or segmentor, of which the rest is left out.
    """
    if holder + mark in state:
        state = {key.removeprefix(holder): value for key, value in state.items() if key.startswith(holder)}
    if mark not in state:
        return dict(state)
    patterns = [(re.compile(pattern), ours) for pattern, ours in rules]

    def our(key: str) -> str:
        found = ((match, ours) for pattern, ours in patterns if (match := pattern.match(key)))
        match, ours = next(found, (None, ""))
        return key if match is None else match.expand(ours) + key[match.end() :]

    return {our(key): value for key, value in state.items()}


def measure_from(encodings: nn.Module, grid_size: Sequence[int]) -> None:
    """Let the policies of all encodings in a module, and of those that these stand over, measure from another grid."""
    for part in encodings.modules():
        if isinstance(part, PositionEncoding):
            part.grid_size = tuple(grid_size)


class LoadsPublished(Unscriptable, nn.Module):
    """Mixin: ``load_state_dict`` takes our layout and every one that :meth:`convert_state` knows, wrapped or not."""

    family: ClassVar[str] = ""
    pretrained_cfg: ClassVar[dict[str, Any]] = {}  # timm sets its own

    # Height and width of images and patches in training, pixels; None where the model has no images.
    trained_img_size: tuple[int, int] | None = None
    trained_patch_size: tuple[int, int] | None = None
    # Whether the size of training was told by a keyword, and whether the user named the weights.
    trained_is_stated = False
    cfg_is_stated = False
    # What the encodings were built from.
    encoding_spec: Any = None
    # Keys of encodings that went with the blocks that were cut off.
    cut_keys: frozenset[str] = frozenset()
    # Whether policies measure from the size that timm's configuration tells of published weights.
    cfg_tells_trained_size: ClassVar[bool] = True

    def record_size(self, img_size: Sequence[int], **arguments: Any) -> None:
        """Tell timm, which saves it, what ``set_input_size`` changed: the nominal size, pixels, and other keywords."""
        size = tuple(img_size)
        self._traits = {**getattr(self, "_traits", {}), "img_size": size}
        changed = {key: value for key, value in arguments.items() if value is not None}
        self._model_args = {**self._model_args, "img_size": size, **changed}

    @property
    def description(self) -> str:
        """The model in a few words, for messages."""
        parts = [part for group in self.modules() if isinstance(group, Composition) for part in group.parts]
        return f"{self.family} with pos_encoding={'+'.join(dict.fromkeys(part.spelling for part in parts))!r}"

    def convert_state(self, state: StateDict) -> StateDict:
        """A published state dict in our layout; ours stays as it is. Each family's ``weights.convert`` does the work.

        Args:
            state: Key -> tensor, as published, without wrappers; where it is
                :class:`~visionpe.utils.weight_files.Weights`, it tells the wrapper of its file.

        Returns:
            A new dict in our layout.

        Raises:
            RuntimeError: If a table has no shape that the model could have, or the model computes something else than
                the code that the file comes from.
        """
        return state

    def in_our_layout(self, state: StateDict) -> StateDict:
        """What :meth:`convert_state` makes of it, and of names that modules of encodings had in older files of ours."""
        parts = [part for part in self.modules() if isinstance(part, PositionEncoding) and part.renamed]
        names = {(part.name, old): new for part in parts for old, new in part.renamed.items()}
        for (part, old), new in names.items():
            pattern = re.compile(rf"(?<![^.]){re.escape(part)}\.{old}\.(?=\d)")
            if any(pattern.search(key) for key in state):
                renamed = {pattern.sub(f"{part}.{new}.", key): value for key, value in state.items()}
                state = state.derived(renamed) if isinstance(state, Weights) else renamed
        return self.convert_state(state)

    def check_state(self, state: StateDict) -> None:
        """Refuse weights in our layout whose tables would be resized where that changes what they say.

        Raises:
            RuntimeError: If there are any.
        """

    def to_modules(self, state: StateDict) -> StateDict:
        """Our layout under the names of the modules, where these differ."""
        return state

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Let policies measure from another size, pixels."""
        self.trained_img_size, self.trained_patch_size = tuple(img_size), tuple(patch_size)  # type: ignore[assignment]

    def saved_arguments(self) -> dict[str, Any]:
        """What outputs depend on besides weights and architecture, as keywords of ``timm.create_model``."""
        known: dict[str, Any] = {}
        if self.trained_img_size is not None:
            known |= {"trained_size": self.trained_img_size, "trained_patch_size": self.trained_patch_size}
        return known | encoding_arguments(self, self.encoding_spec)

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm writes beside the weights (``save_for_hf``) and builds the model with when they are loaded."""
        return {**self.__dict__.get("given_arguments", {}), **self.saved_arguments()}

    @_model_args.setter
    def _model_args(self, given: dict[str, Any]) -> None:
        self.__dict__["given_arguments"] = dict(given)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load weights in our layout or a published one, or the content of a whole file.

        Raises:
            RuntimeError: If ``strict`` and the file does not fit; the message names the first offending keys.
        """
        given = unwrapped(state_dict) if isinstance(state_dict, Mapping) else state_dict
        check_tensors(given)
        state = self.in_our_layout(given)
        if strict:
            check_fit(state, self)
        try:
            return super().load_state_dict(state, strict=strict, assign=assign)
        except RuntimeError as error:
            raise error if isinstance(error, MisfitError) else MisfitError(str(error)) from None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = {k: state_dict.pop(k) for k in list(state_dict) if k.startswith(prefix)}
        converted = self.to_modules(self.in_our_layout({k[len(prefix) :]: v for k, v in own.items()}))
        state_dict.update({prefix + k: v for k, v in converted.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


# In place of the wrapper, of weights that timm hosts.
TIMM = "timm"
# Where weights come from, in timm's terms.
SOURCES = ("url", "file", "state_dict", "hf_hub_id")


def size_of_weights(
    variant: str, cfg: Any = None, overlay: Mapping[str, Any] | None = None, saved: Mapping[str, Any] | None = None
) -> Sequence[int] | None:
    """Height and width that ``pretrained=True`` will load weights of, pixels; None where nobody says: the model's own.

    Args:
        variant: Name of the model.
        cfg: timm's ``pretrained_cfg``: a tag or a whole configuration.
        overlay: timm's ``pretrained_cfg_overlay``. One with a file of its own and no ``input_size`` says nothing: the
            size in the configuration is that of other weights.
        saved: Keywords that were saved beside the weights.
    """
    saved, overlay = saved or {}, overlay or {}
    size = saved.get("trained_size") or saved.get("img_size")
    if size is not None:
        return as_size(size if isinstance(size, int) else tuple(size), "img_size")
    if overlay.get("input_size"):
        return tuple(overlay["input_size"][-2:])
    if any(overlay.get(key) for key in SOURCES) or (isinstance(cfg, Mapping) and not cfg.get("input_size")):
        return None
    known = resolve_pretrained_cfg(variant, cfg, dict(overlay)).input_size  # None of point clouds
    return known and tuple(known[-2:])


def checkpoint_filter_fn(
    checkpoint: dict[str, Any],
    model: Any,
    strict: bool = True,
    trained: Sequence[int] | None = None,
    lacking: set[str] | None = None,
) -> StateDict:
    """Prepare a published checkpoint for ``model``; used by ``pretrained=True``.

    Policies measure from the size that the weights were trained at, whatever size the model is built for.

    Args:
        checkpoint: The file's content, wrapped or not.
        model: The model that will load it.
        strict: Refuse a file that does not fit.
        trained: Height and width that the weights were trained at, pixels; None for those of the model.
        lacking: Takes the keys that the file lacks, which stay as initialised; None where it must not lack any.

    Returns:
        A state dict in our layout.

    Raises:
        RuntimeError: If the file does not fit.
    """
    source = unwrapped(checkpoint)
    known = trained is not None and model.cfg_tells_trained_size and model.trained_img_size is not None
    if known:
        weight = source.get("patch_embed.proj.weight")
        patch = model.trained_patch_size if weight is None or weight.ndim != 4 else weight.shape[-2:]
        model.set_trained_size(tuple(trained), tuple(patch))  # type: ignore[arg-type]
    cfg = model.pretrained_cfg
    if source.wrapper is None and not cfg.get("file") and str(cfg.get("hf_hub_id")).startswith("timm/"):
        source.wrapper = TIMM
    before, model.trained_is_stated = model.trained_is_stated, known
    try:
        state = model.in_our_layout(source)
    finally:
        model.trained_is_stated = before
    if lacking is not None:
        own = model.state_dict()
        lacking |= own.keys() - state.keys()
        state |= {key: own[key] for key in lacking}
    if strict:
        check_fit(state, model)
    return state
