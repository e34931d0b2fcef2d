"""Resolution policies of a whole model."""

from __future__ import annotations

from torch import nn

from visionpe.base import PositionEncoding
from visionpe.rotary import RotaryEncoding


def _encodings(model: nn.Module) -> list[PositionEncoding]:
    return [m for m in model.modules() if isinstance(m, PositionEncoding) and m.policies]


def policies(model: nn.Module) -> list[str]:
    """Names of the policies that apply to a model, those in force first; empty where there is nothing to adapt."""
    encodings = _encodings(model)
    names = [e.policy for e in encodings if e.policy] + [name for e in encodings for name in e.policies]
    return list(dict.fromkeys(names))


def set_policy(model: nn.Module, policy: str) -> nn.Module:
    """Choose what a model does at sizes that it was not trained at, without retraining.

    Parameters and state dict stay as they are. In a composition the policy is given to the parts that know it.

    Args:
        model: Any model that holds encodings of this package.
        policy: One of ``policies(model)``.

    Returns:
        The model.

    Raises:
        ValueError: If no encoding of the model knows the policy.
    """
    takers = [e for e in _encodings(model) if policy in e.policies]
    if not takers:
        allowed = ", ".join(policies(model)) or "none: the model has nothing to adapt"
        for encoding in model.modules():
            if isinstance(encoding, RotaryEncoding) and encoding.fractional:
                allowed += f" ({encoding.name!r} has no policy with fractional=True)"
        raise ValueError(f"policy={policy!r} applies to no encoding of {type(model).__name__}; allowed: {allowed}")
    for encoding in takers:
        encoding.set_policy(policy)
    return model
