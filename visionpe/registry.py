"""From a name or a specification to an encoding."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from visionpe.base import PositionEncoding
from visionpe.checks import shown
from visionpe.composition import Composition
from visionpe.specification import Spec, parse_spec

E_ = TypeVar("E_", bound=type[PositionEncoding])

_ENCODINGS: dict[str, type[PositionEncoding]] = {}
_WRAPPERS: dict[str, type[PositionEncoding]] = {}
_SHORT: dict[str, str] = {}  # second names
_LISTENERS: list[Callable[[str], None]] = []


def register_encoding(name: str, *, short: str | None = None) -> Callable[[E_], E_]:
    """Class decorator: make an encoding known under ``name``, in every backbone, and under a second, shorter one.

    Example::

        @visionpe.register_encoding("mine")
        class Mine(visionpe.PositionEncoding):
            def add(self, x, grid):
                return x + ...

        timm.create_model("mine_vit_s")                    # or: pos_encoding="mine+ape"

    Raises:
        ValueError: If the name is taken or no Python identifier.
        TypeError: If the class is no ``PositionEncoding``.
    """

    def register(cls: E_) -> E_:
        if not (inspect.isclass(cls) and issubclass(cls, PositionEncoding)):
            raise TypeError(f"register_encoding({name!r}) takes a PositionEncoding class, got {cls!r}")
        _check_name(name)
        if short is not None:
            _check_name(short)
            _SHORT[short] = name
        cls.name = name
        _ENCODINGS[name] = cls
        for listener in _LISTENERS:
            listener(name)
        return cls

    return register


def register_wrapper(name: str) -> Callable[[E_], E_]:
    """Class decorator: make a wrapper known under ``name``, as in ``"name(ape)"``; no model is named after it.

    Raises:
        ValueError: If the name is taken or no Python identifier.
        TypeError: If the class is no ``PositionWrapper``.
    """

    def register(cls: E_) -> E_:
        if not (inspect.isclass(cls) and issubclass(cls, PositionEncoding) and cls.is_wrapper):
            raise TypeError(f"register_wrapper({name!r}) takes a PositionWrapper class, got {cls!r}")
        _check_name(name)
        cls.name = name
        _WRAPPERS[name] = cls
        return cls

    return register


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name={name!r} is no identifier; letters, digits and underscores are allowed")
    taken = {**_ENCODINGS, **_WRAPPERS, **{second: _ENCODINGS[first] for second, first in _SHORT.items()}}
    if name in taken:
        raise ValueError(f"name={name!r} is taken by {taken[name].__qualname__}")


def on_register(listener: Callable[[str], None]) -> None:
    """Call ``listener(name)`` for every encoding known now and for every one registered later."""
    _LISTENERS.append(listener)
    for name in list(_ENCODINGS):
        listener(name)


def list_encodings() -> list[str]:
    """Names of all registered encodings, sorted."""
    return sorted(_ENCODINGS)


def names_of(name: str) -> tuple[str, ...]:
    """All names of the encoding ``name``, the short one first: ``("rope", "rope_mixed")``."""
    return (*(second for second, first in _SHORT.items() if first == name), name)


def list_wrappers() -> list[str]:
    """Names of all registered wrappers, sorted: what may stand over an encoding in training, ``"dropped(ape)"``."""
    return sorted(_WRAPPERS)


def get_encoding(name: str) -> type[PositionEncoding]:
    """The class registered under ``name``, or under that as its short name.

    Raises:
        TypeError: If ``name`` is no text.
        ValueError: If there is none; the message lists near matches.
    """
    if not isinstance(name, str):
        raise TypeError(f"name={shown(name)} is no encoding; allowed: a text, such as 'ape'")
    name = _SHORT.get(name, name)
    if name not in _ENCODINGS:
        near = get_close_matches(name, [*_ENCODINGS, *_WRAPPERS], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        over = f"; over them: {', '.join(f'{n}(...)' for n in list_wrappers())}" if _WRAPPERS else ""
        raise ValueError(f"encoding {name!r} is unknown; {hint}all: {', '.join(list_encodings())}{over}")
    return _ENCODINGS[name]


# What a backbone may say of itself, for the encodings that ask.
HINTS = ("prefix_slots", "signals", "quant_size", "attention_window", "window", "token_dim")


def _keywords(cls: type[PositionEncoding]) -> set[str]:
    """Keywords of the constructor, through ``**kwargs`` up to the base."""
    allowed: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        allowed |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return allowed


def encoding_classes(spec: Spec) -> list[type[PositionEncoding]]:
    """The class of every part of a specification, before anything is built.

    Raises:
        ValueError: If a name is unknown, with near matches.
    """
    names = [name for name, _ in parse_spec(spec)]
    return [_WRAPPERS[n] if isinstance(n, str) and n in _WRAPPERS else get_encoding(n) for n in names]


def create_encodings(spec: Spec, **context: Any) -> list[PositionEncoding]:
    """Build every part of a specification. See :func:`create_encoding`."""
    parts = []
    for cls, (name, options) in zip(encoding_classes(spec), parse_spec(spec)):
        allowed = _keywords(cls)
        for key in options:
            if key == "over" and key not in allowed:
                takers = ", ".join(
                    f"{n}(...)" for n, c in {**_ENCODINGS, **_WRAPPERS}.items() if "over" in _keywords(c)
                )
                raise ValueError(
                    f"{name!r} goes over no other encoding; allowed: {takers or 'none does'}, and options as "
                    f"{name}(option=value)"
                )
            if key not in allowed:
                near = get_close_matches(key, allowed, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ValueError(f"{name!r} takes no option {key!r}; {hint}allowed: {', '.join(sorted(allowed))}")
        known = {k: v for k, v in context.items() if k in allowed or k not in HINTS or cls.hands_on_hints}
        slots = options.get("prefix_slots")
        if known.get("prefix_slots") == 0 and isinstance(slots, int) and slots > 0:
            options = options | {"prefix_slots": 0}  # nobody would read entries of tokens that there are none of
        parts.append(cls(**{**known, **options}))
    return parts


def create_encoding(spec: Spec, **context: Any) -> PositionEncoding | Composition:
    """Build an encoding from its specification.

    Args:
        spec: A name, ``"a+b"``, ``"a(b)"``, ``"a(option=value)"``, a dict with ``name`` and options, or a list of
            those; see :func:`~visionpe.specification.parse_spec`.
        context: What the backbone knows: ``dim``, ``num_heads``, and where they matter ``depth``, ``grid_size``,
            ``device``, ``dtype``; ``prefix_slots=0`` where there are no prefix tokens, ``signals`` and ``quant_size``
            where tokens have colours or normals, ``attention_window`` where attention has windows, ``window`` where
            tables repeat with them. Hints go to what stands under a wrapper too. Options of the specification go first.

    Returns:
        The encoding, or a composition where there are several.

    Raises:
        ValueError: If a name or an option is unknown, with near matches.
    """
    parts = create_encodings(spec, **context)
    return parts[0] if len(parts) == 1 else Composition(parts)
