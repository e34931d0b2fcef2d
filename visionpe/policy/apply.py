"""Resolution policies of a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from visionpe.checks import shown
from visionpe.policy.grammar import DEFAULT, PolicyTerm, format_policy, parse_policy
from visionpe.policy.holder import HasPolicy, policy_holders
from visionpe.policy.images import is_behind
from visionpe.policy.selection import PolicyChoice
from visionpe.policy.sizes import Size
from visionpe.policy.table import FollowsTable, PolicyTable


def policies(model: nn.Module) -> list[str]:
    """Names of the policies that apply to a model, those in force first; empty where there is nothing to adapt.

    Each may be given to :func:`set_policy` alone or with others, joined by ``+``.
    """
    parts = policy_holders(model.modules())
    names = [str(choice) for part in parts for choice in part.policy_terms]
    # What an encoding does with positions, then what joins it there, then what concerns all of attention.
    names += [name for part in parts for name in part.policies]
    names += [name for part in parts for name in part.modifiers]
    return list(dict.fromkeys(names))


def set_policy(
    model: nn.Module,
    policy: str | Path | PolicyChoice | Mapping[Any, str | PolicyChoice],
    *,
    size: int | Size | str | None = None,
) -> nn.Module:
    """Choose what a model does at sizes that it was not trained at, without retraining.

    Parameters and state dict stay as they are. Each part of the model takes what it knows: in a composition
    ``"yarn+bilinear"`` reaches rotary angles and a table. A part that is given none of its policies keeps the one it
    has; what joins the others (``temperature``, ``decay``, ``resonance``, ...) ends where it is not named again.

    Args:
        model: Any model that holds encodings of this package.
        policy: One of ``policies(model)`` or several joined by ``+``, some with numbers: ``"yarn+temperature"``,
            ``"rescale(0.75)"``. ``"default"``: everything as built. A choice of :func:`visionpe.choose_policy`. Or a
            table of policies by image size: a :class:`~visionpe.policy.PolicyTable`, a mapping such as
            ``{"512x512": "yarn"}``, or the JSON file of one (``"policies.json"``). Then every forward pass takes the
            policy of the nearest size, until another policy is set; threads that run images of several sizes need a
            model each.
        size: The image size, pixels, for which the policy of a table is set once and for all.

    Returns:
        The model.

    Raises:
        ValueError: If no part of the model knows one of them, two exclude each other, a table cannot be read, or the
            model has no patch embedding that could tell the size of the images.
        visionpe.utils.errors.MissingFileError: If there is no such file.
    """
    if isinstance(policy, PolicyChoice):
        policy = policy.policy
    if isinstance(policy, Path) or (isinstance(policy, str) and policy.endswith(".json")):
        policy = PolicyTable.load(policy)
    if isinstance(policy, Mapping):
        table = policy if isinstance(policy, PolicyTable) else PolicyTable(policy)
        if size is None:
            return follow_table(model, table)
        policy = table.nearest(size)
    elif not isinstance(policy, str):
        raise ValueError(
            f"policy={shown(policy)} is no policy; allowed: a name, a choice, a table by size or its JSON file"
        )
    for embed in _embeddings(model):
        _unfollow(embed)
    return _set(model, policy)


def _set(model: nn.Module, policy: str) -> nn.Module:
    """Set a policy by name on every part that knows it."""
    parts = policy_holders(model.modules())
    if policy == DEFAULT:
        for part in parts:
            part.set_policy(DEFAULT)
        return model
    choices = parse_policy(policy)
    for choice in choices:
        if not any(part.supports_policy(choice) for part in parts):
            allowed = ", ".join(policies(model)) or "none; a model of timm takes policies after visionpe.adapt(model)"
            reasons = [part.without_policy for part in model.modules() if isinstance(part, HasPolicy)]
            allowed += "".join(f" ({reason})" for reason in reasons if reason)
            raise ValueError(
                f"policy={str(choice)!r} applies to no encoding of {type(model).__name__}; allowed: {allowed}"
            )
    before = [(part, part.policy) for part in parts]
    try:
        for part in parts:
            own = format_policy([choice for choice in choices if part.supports_policy(choice)])
            if own:
                part.set_policy(own)
            elif part.modifiers:
                part.policy = str(part.main_policy) if part.main_policy else None
    except ValueError:
        for part, old in before:  # all of it or nothing
            part.policy = old
        raise
    return model


def follow_table(model: nn.Module, table: PolicyTable) -> nn.Module:
    """Let every forward pass take the policy of the size of its images.

    Raises:
        ValueError: If a policy of the table does not fit the model, the table is empty, or the model has no patch
            embedding.
    """
    embeds = _embeddings(model)
    if not embeds:
        raise ValueError(f"{type(model).__name__} has no patch_embed, which tells the size; allowed: a policy by name")
    if not table:
        raise ValueError("policy={}: the policy table is empty; allowed: one size or more")
    parts = policy_holders(model.modules())
    before, hook = [part.policy for part in parts], FollowsTable(table, parts)
    try:
        for name in dict.fromkeys(table.values()):
            _set(_set(model, DEFAULT), name)
            hook.terms[name] = [part.policy for part in parts]
    finally:
        for part, policy in zip(parts, before):
            part.policy = policy
    for embed in embeds:
        _unfollow(embed)
        embed.register_forward_pre_hook(hook, prepend=True)  # before the images are resized
    return model


def _embeddings(model: nn.Module) -> list[nn.Module]:
    """The modules that see the images first."""
    found = [module if is_behind(module) else getattr(module, "patch_embed", None) for module in model.modules()]
    return list(dict.fromkeys(embed for embed in found if isinstance(embed, nn.Module)))


def _unfollow(embed: nn.Module) -> None:
    for key, hook in list(embed._forward_pre_hooks.items()):
        if isinstance(hook, FollowsTable):
            del embed._forward_pre_hooks[key]


def build_policy(model: nn.Module, policy: str) -> nn.Module:
    """:func:`set_policy` for a model under construction: ``"default"`` will lead back to ``policy``."""
    set_policy(model, policy)
    for part in policy_holders(model.modules()):
        part.mark_as_built()
    return model


def policy_in_force(model: nn.Module) -> str | dict[str, str] | None:
    """What :func:`set_policy` needs to bring a model built anew to the policies in force; None where nothing is.

    None too where one name for the whole model cannot say it, see :func:`policies_differ`.
    """
    for embed in _embeddings(model):
        for hook in embed._forward_pre_hooks.values():
            if isinstance(hook, FollowsTable):
                return {f"{height}x{width}": policy for (height, width), policy in hook.table.items()}
    parts = policy_holders(model.modules())
    if _as_by_default(parts) or not _say_the_same(parts):
        return None
    return format_policy(_terms(parts)) or None


def policies_differ(model: nn.Module) -> bool:
    """Whether two encodings share a policy and have another each, so that no name says it for the whole model."""
    parts = policy_holders(model.modules())
    return policy_in_force(model) is None and not _as_by_default(parts) and not _say_the_same(parts)


def modifiers_in_force(model: nn.Module) -> str | None:
    """What joins the policies of the encodings, by one name for the whole model; None where nothing does."""
    parts = policy_holders(model.modules())
    joined = [term for part in parts for term in part.policy_terms if term.name in part.modifiers]
    return format_policy(list(dict.fromkeys(joined))) or None


def _as_by_default(parts: list[HasPolicy]) -> bool:
    return all(part.policy == (part.policies[0] if part.policies else None) == part.built_policy for part in parts)


def _terms(parts: list[HasPolicy]) -> list[PolicyTerm]:
    return list(dict.fromkeys(term for part in parts for term in part.policy_terms))


def _say_the_same(parts: list[HasPolicy]) -> bool:
    """Whether every part has all of the terms in force that it knows, and no others."""
    terms = _terms(parts)
    return all([term for term in terms if part.supports_policy(term)] == list(part.policy_terms) for part in parts)
