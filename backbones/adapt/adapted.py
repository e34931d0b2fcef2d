"""What every adapted model shares: how it came to be, how files of both layouts load, what is saved with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from visionpe.backbones.adapt.stacked import fit_blocks
from visionpe.backbones.shared.saving import encoding_arguments
from visionpe.checks import shown
from visionpe.composition import Composition
from visionpe.graphs import Unscriptable
from visionpe.policy.sizes import Size, as_size, trained_size
from visionpe.registry import Spec, parse_spec
from visionpe.utils.weight_files import unwrapped

State = Mapping[str, Tensor]
# In timm's registry, for models that were saved after they had been adapted.
ARCHITECTURE = "adapted"


class Adapted(Unscriptable, nn.Module):
    """Mixin, ahead of a class of timm's: the same model, with its positions as encodings of this package.

    A family overrides what is below; :func:`~visionpe.backbones.adapt.adapt` makes a copy of a model that shares its
    weights, changes its class to the family's, and calls :meth:`take_over`.

    Attributes:
        position_keys: Patterns of the keys of timm's state dict that hold positions, and are none here.
        sees_images: The module that does so first.
        spec: What the encodings were built from.
        asked: The ``pos_encoding`` that was asked for, or None.
        cut_keys: Of the state dict, what went when the model was cut down to its features; files may have it.
    """

    position_keys: ClassVar[tuple[str, ...]] = ()
    # Features that `features_only` gives by default.
    default_out_indices: ClassVar[Any] = (0, 1, 2, 3)
    sees_images: ClassVar[str] = "patch_embed"
    spec: list[Any]
    asked: Spec | None
    cut_keys: Collection[str] = ()

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        """What a model of timm's is told of positions, as a specification.

        Raises:
            ValueError: If it is something that this package cannot do.
        """
        raise NotImplementedError

    def take_over(self, spec: list[Any]) -> None:
        """Put encodings in the place of timm's positions, in this copy of the model."""
        raise NotImplementedError

    def trained_pixels(self) -> Size | None:
        """Height and width of the images that the original was built for, as timm notes it; None if nothing tells."""
        noted = self.__dict__.get("_traits", {}).get("img_size")
        try:
            return as_size(noted, "img_size") if noted else trained_size(self)
        except ValueError:
            return None

    def positions(self, state: State) -> dict[str, Tensor]:
        """What timm's state dict says of positions, in our layout.

        Args:
            state: As timm has it, with at least one of ``position_keys``.

        Returns:
            Tensors under keys of this model, or of encodings that it might have. What else changes with them, such as
            class tokens that had a place in a table, is among them.
        """
        raise NotImplementedError

    def from_published(self, state: State) -> State:
        """A state dict of the authors' code in timm's layout; any other as it is. Default: they are the same."""
        return state

    def take_weights(self, original: nn.Module) -> None:
        """Take the positions of the original, which may be trained on as before or not at all, as they were there."""
        had = original.state_dict(keep_vars=True)
        before = [t for key, t in had.items() if self.is_position(key)]
        if not before:
            return
        frozen = not any(t.requires_grad for t in before)
        own = dict(self.named_parameters())
        for key, value in self._own_positions(original.state_dict()).items():
            path, _, name = key.rpartition(".")
            learns = own[key].requires_grad if key in had else not frozen
            # Parameters of its own, as the original keeps what it has.
            new = nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format), requires_grad=learns)
            self.get_submodule(path).register_parameter(name, new)

    def is_position(self, key: str) -> bool:
        """Whether a key of timm's state dict holds positions."""
        return any(fnmatchcase(key, pattern) for pattern in self.position_keys)

    def in_our_layout(self, state: State) -> dict[str, Any]:
        """A state dict of the original with positions as this model has them; one of this model as it is.

        Positions that this model does not have, and those of blocks that were cut off, are left out. Encodings that
        were asked for, of which the original has nothing, stay as they are.
        """
        if not any(self.is_position(key) for key in state):
            return dict(state)
        rest = {key: value for key, value in state.items() if not self.is_position(key)}
        return rest | self._new_encodings(state) | self._own_positions(state)

    def _new_encodings(self, state: State) -> dict[str, Tensor]:
        """What this model has of encodings that the original has not."""
        if self.asked is None:
            return {}
        had = {key.rpartition(".")[0] for key in self.positions(state)}
        groups = [name for name, each in self.named_modules() if isinstance(each, Composition)]
        parts = {f"{name}.{part}" for name in groups for part in self.get_submodule(name)._modules}
        new = tuple(f"{part}." for part in parts if not any(key == part or key.startswith(f"{part}.") for key in had))
        return {key: value for key, value in self.state_dict().items() if new and key.startswith(new)}

    def _own_positions(self, state: State) -> dict[str, Tensor]:
        """Of :meth:`positions` what this model has."""
        known = self.state_dict().keys()
        return fit_blocks({key: value for key, value in self.positions(state).items() if key in known}, self)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load weights in this layout, in timm's or in that of the authors, or the content of a whole file."""
        state = self.from_published(unwrapped(state_dict)) if isinstance(state_dict, Mapping) else state_dict
        return super().load_state_dict(state, strict=strict, assign=assign)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in self.cut_keys:
            state_dict.pop(prefix + key, None)
        own = {key[len(prefix) :]: state_dict[key] for key in list(state_dict) if key.startswith(prefix)}
        if any(self.is_position(key) for key in own):
            for key in own:
                del state_dict[prefix + key]
            state_dict.update({prefix + key: value for key, value in self.in_our_layout(own).items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone: timm's, and what encodings say of theirs."""
        given: Collection[str] = getattr(super(), "no_weight_decay", tuple)()
        groups = ((name, each) for name, each in self.named_modules() if isinstance(each, Composition))
        own = {f"{name}.{key}" for name, each in groups for key in each.no_weight_decay()}
        return {name for name, _ in self.named_parameters() if name in given} | own

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm writes beside the weights: keywords by which the model is built again, as it is now."""
        given = {key: value for key, value in self.__dict__.get("given_arguments", {}).items() if key != "policy"}
        spec = {} if self.asked is None else {"pos_encoding": self.asked}
        return {**given, "original": self.original, **spec, **encoding_arguments(self, self.spec)}

    @_model_args.setter
    def _model_args(self, given: dict[str, Any]) -> None:
        self.__dict__["given_arguments"] = dict(given)

    @property
    def original(self) -> str:
        """Name of the model in timm."""
        return self.__dict__.get("original_name", "")

    def remember(self, spec: list[Any], asked: Spec | None) -> None:
        """Note what it is, for files that timm writes of it."""
        self.given_arguments: dict[str, Any] = self.__dict__.pop("_model_args", {})
        cfg = dict(self.__dict__.get("pretrained_cfg") or {})
        name, tag = cfg.get("architecture") or "", cfg.get("tag") or ""
        self.original_name = f"{name}.{tag}" if tag else name
        self.spec, self.asked = spec, asked
        if cfg:
            self.pretrained_cfg = self.default_cfg = {**cfg, "architecture": ARCHITECTURE}


Kind = TypeVar("Kind", bound=type[Adapted])
ADAPTED: dict[type, type[Adapted]] = {}


def adapts(*originals: type) -> Callable[[Kind], Kind]:
    """Class decorator: models of these classes of timm's become the decorated one."""

    def register(kind: Kind) -> Kind:
        for original in originals:
            ADAPTED[original] = kind
        return kind

    return register


def combined(kind: type[Adapted], model: Any, asked: Spec | None) -> list[Any]:
    """What a model had, what was asked for instead, or both where that starts with ``+``.

    Raises:
        ValueError: If nothing stands behind the ``+``.
    """
    if asked is None:
        return kind.own_encoding(model) or [{"name": "none"}]
    if isinstance(asked, str) and asked.lstrip().startswith("+"):
        rest = asked.strip()[1:]
        if not rest.strip():
            raise ValueError(f"pos_encoding={shown(asked)} adds nothing; allowed: '+alibi' and the like")
        return [*kind.own_encoding(model), *({"name": name, **options} for name, options in parse_spec(rest))]
    return [{"name": name, **options} for name, options in parse_spec(asked)]
