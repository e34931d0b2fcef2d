"""timm's model as it is built before it is adapted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
from timm.models import model_entrypoint

Build = Callable[..., Any]
_BUILDS: dict[str, Build] = {}


def builds(module: str) -> Callable[[Build], Build]:
    """Decorator: names of this module of timm's are built by the function, called as ``timm.create_model``."""

    def register(build: Build) -> Build:
        _BUILDS[module] = build
        return build

    return register


def build_original(name: str, **kwargs: Any) -> Any:
    """A model of timm's, with keywords besides where timm's own take no sizes.

    Args:
        name: In timm, with or without a tag.
        kwargs: As ``timm.create_model`` takes them.
    """
    if ":" in name or not timm.is_model(name):  # a hub or a folder, or unknown: timm says so
        return timm.create_model(name, **kwargs)
    return _BUILDS.get(model_entrypoint(name).__module__, timm.create_model)(name, **kwargs)
