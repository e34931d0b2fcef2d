"""MViTv2s of other sizes than timm's, whose names take no keywords for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import timm
from timm.models.mvitv2 import MultiScaleVitCfg, model_cfgs

from visionpe.backbones.adapt.originals import builds
from visionpe.checks import shown

SIZES = tuple(each.name for each in fields(MultiScaleVitCfg))


@builds("timm.models.mvitv2")
def build(name: str, *, cfg_variant: str | None = None, **kwargs: Any) -> Any:
    """A model of timm's; fields of timm's ``MultiScaleVitCfg``, such as ``depths`` and ``embed_dim``, are keywords.

    Args:
        name: In timm.
        cfg_variant: Name of other sizes in timm, from which keywords differ.
        kwargs: As ``timm.create_model`` takes them, and the fields.

    Raises:
        ValueError: If widths, heads or strides are not those of all stages.
    """
    given = {key: kwargs.pop(key) for key in SIZES if key in kwargs}
    variant = cfg_variant or name.split(".")[0]
    if not given:
        return timm.create_model(name, cfg_variant=variant, **kwargs)
    sizes = _sizes(variant, given)
    passing = f"{variant} {sorted(given.items())}"
    model_cfgs[passing] = sizes
    try:
        model = timm.create_model(name, cfg_variant=passing, **kwargs)
    finally:
        model_cfgs.pop(passing, None)
    noted = {key: value for key, value in model._model_args.items() if key != "cfg_variant"}
    model._model_args = {**noted, **({"cfg_variant": cfg_variant} if cfg_variant else {}), **given}
    return model


def _sizes(variant: str, given: dict[str, Any]) -> MultiScaleVitCfg:
    known = asdict(model_cfgs[variant])
    if not {"stride_kv", "stride_kv_adaptive", "stride_q", "depths"}.isdisjoint(given):
        known["stride_kv"] = None  # follows from the others
    sizes = {**known, **given}
    stages = len(sizes["depths"])
    for key in ("embed_dim", "num_heads"):
        if key not in given and len(sizes[key]) != stages:
            sizes[key] = sizes[key][0]  # doubled from stage to stage
    for key in ("embed_dim", "num_heads", "stride_q", "stride_kv"):
        value = sizes[key]
        if isinstance(value, Sequence) and len(value) != stages:
            if key in given:
                raise ValueError(f"{key}={shown(value)}: allowed: one for each of {stages} stages, as depths says")
            sizes[key] = value[:stages]
    return MultiScaleVitCfg(**sizes)
