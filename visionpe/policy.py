"""Resolution policies of a whole model."""

from __future__ import annotations

from torch import nn

from visionpe.adapting import DEFAULT, adaptable, join, parse_policy
from visionpe.rotary import RotaryEncoding


def policies(model: nn.Module) -> list[str]:
    """Names of the policies that apply to a model, those in force first; empty where there is nothing to adapt.

    Each may be given to :func:`set_policy` alone or with others, joined by ``+``.
    """
    parts = adaptable(model.modules())
    names = [str(choice) for part in parts for choice in part.choices]
    # What an encoding does with positions, then what joins it there, then what concerns all of attention.
    names += [name for part in parts for name in part.policies]
    names += [name for part in parts for name in part.modifiers]
    return list(dict.fromkeys(names))


def set_policy(model: nn.Module, policy: str) -> nn.Module:
    """Choose what a model does at sizes that it was not trained at, without retraining.

    Parameters and state dict stay as they are. Each part of the model takes what it knows: in a composition
    ``"yarn+bilinear"`` reaches rotary angles and a table. A part that is given none of its policies keeps the one it
    has; what joins the others (``temperature``, ``decay``, ``resonance``, ...) ends where it is not named again.

    Args:
        model: Any model that holds encodings of this package.
        policy: One of ``policies(model)`` or several joined by ``+``, some with numbers: ``"yarn+temperature"``,
            ``"rescale(0.75)"``. ``"default"``: everything as built.

    Returns:
        The model.

    Raises:
        ValueError: If no part of the model knows one of them, or two exclude each other.
    """
    parts = adaptable(model.modules())
    if policy == DEFAULT:
        for part in parts:
            part.set_policy(DEFAULT)
        return model
    choices = parse_policy(policy)
    for choice in choices:
        if not any(part.knows(choice) for part in parts):
            allowed = ", ".join(policies(model)) or "none: the model has nothing to adapt"
            for encoding in model.modules():
                if isinstance(encoding, RotaryEncoding) and encoding.fractional:
                    allowed += f" ({encoding.name!r} has no policy with fractional=True)"
            raise ValueError(
                f"policy={str(choice)!r} applies to no encoding of {type(model).__name__}; allowed: {allowed}"
            )
    before = [(part, part.policy) for part in parts]
    try:
        for part in parts:
            own = join([choice for choice in choices if part.knows(choice)])
            if own:
                part.set_policy(own)
            elif part.modifiers:
                part.policy = str(part.chosen) if part.chosen else None
    except ValueError:
        for part, old in before:  # all of it or nothing
            part.policy = old
        raise
    return model


def build_policy(model: nn.Module, policy: str) -> nn.Module:
    """:func:`set_policy` for a model under construction: ``"default"`` will lead back to ``policy``."""
    set_policy(model, policy)
    for part in adaptable(model.modules()):
        part.as_built()
    return model
