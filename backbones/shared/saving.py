"""What outputs depend on besides weights, as keywords that build the same model again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from visionpe.base import PositionEncoding
from visionpe.composition import Composition
from visionpe.policy.apply import modifiers_in_force, policies_differ, policy_in_force
from visionpe.registry import Spec, parse_spec


def encoding_arguments(model: nn.Module, spec: Spec | None) -> dict[str, Any]:
    """The encoding and the policy in force, as keywords of ``timm.create_model``; what is as given is left out.

    Args:
        model: One of ours.
        spec: What its encodings were built from; None where nobody knows.
    """
    known: dict[str, Any] = {}
    parts = [part for group in model.modules() if isinstance(group, Composition) for part in group.parts]
    differ, policy = policies_differ(model), policy_in_force(model)
    every = [part for part in model.modules() if isinstance(part, PositionEncoding)]
    if spec is not None and (differ or any(getattr(part, "adopted", {}) for part in every)):
        known["pos_encoding"] = _in_force(spec, parts, with_policies=differ)
        if differ:  # one name that the model was built with says it no longer
            return known | {"policy": modifiers_in_force(model)}
    return known if policy is None else known | {"policy": policy}


def _in_force(spec: Spec, parts: Sequence[PositionEncoding], *, with_policies: bool) -> list[dict[str, Any]]:
    """A specification with the options that encodings have now.

    Args:
        spec: As they were built.
        parts: What was built from it, several of a name in a model of stages.
        with_policies: Name the policy of each, where all of a name have the same.
    """
    out: list[dict[str, Any]] = []
    for name, given in parse_spec(spec):
        own = [part for part in parts if type(part).name == name]
        options = dict(given)
        for part in own:
            options |= getattr(part, "adopted", {})
        policies = {part.policy for part in own if part.policies and not part.is_wrapper}
        if with_policies and len(policies) == 1:
            options["policy"] = policies.pop()
        under = [part.beneath for part in own if part.beneath is not None]
        if under:
            inner = options.get("over", under[0].spelling)
            options["over"] = _in_force(inner, under, with_policies=with_policies)
        out.append({"name": name, **options})
    return out
