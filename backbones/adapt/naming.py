"""Names of our own for models of timm's, adapted: what timm's registry needs to know of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import timm
from timm.models import PretrainedCfg, generate_default_cfgs, register_model

from visionpe.backbones.adapt.entry import adapted, as_features, check_feature_class
from visionpe.checks import shown


def create(
    variant: str,
    originals: Mapping[str, str],
    features_of: Callable[[Any], Any],
    pretrained: bool = False,
    /,
    *,
    pretrained_cfg: Any = None,
    features_only: bool = False,
    out_indices: Any = None,
    feature_cls: Any = None,
    **kwargs: Any,
) -> Any:
    """Build a model, as timm's entry points do.

    Args:
        variant: Name of the model.
        originals: Tag to name and tag in timm; the first is the default.
        features_of: ``out_indices`` by default, of the model.
        pretrained: Load the weights, from where timm hosts them.
        pretrained_cfg: A tag, or a configuration of other weights of the default one's architecture.
        features_only: Give features ``(B, dim, height, width)``.
        out_indices: Of blocks or stages, as timm counts them in the model.
        feature_cls: None or ``getter``, the same.
        kwargs: ``pos_encoding`` and ``policy``, see :func:`visionpe.adapt`, and keywords of timm's model.

    Raises:
        ValueError: If there is no such tag.
    """
    check_feature_class(feature_cls)
    tag = pretrained_cfg if isinstance(pretrained_cfg, str) and pretrained_cfg else next(iter(originals))
    if tag not in originals:
        raise ValueError(f"{variant}.{tag}: tag {shown(tag)} is unknown; allowed: {', '.join(originals)}")
    cfg = {} if pretrained_cfg is None or isinstance(pretrained_cfg, str) else {"pretrained_cfg": pretrained_cfg}
    model = adapted(pretrained, original=originals[tag], **cfg, **kwargs)
    if not features_only:
        return model
    return as_features(model, features_of(model) if out_indices is None else out_indices)


def config(original: str, *, weights: bool = True) -> PretrainedCfg:
    """What timm states of weights: source, preprocessing, licence. Adapted models take any size."""
    cfg = timm.get_pretrained_cfg(original, allow_unregistered=False)
    assert cfg is not None
    cfg = replace(cfg, architecture=None, tag=None, fixed_input_size=False)
    return cfg if weights else replace(cfg, hf_hub_id=None, hf_hub_filename=None, url=None, file=None, license=None)


def register(
    module: str,
    variant: str,
    originals: Mapping[str, str],
    features_of: Callable[[Any], Any],
    *,
    weights: bool = True,
    **defaults: Any,
) -> None:
    """Make a name known to timm.

    Args:
        module: ``__name__`` of the module that holds the names, in its ``default_cfgs`` what is stated of weights.
        variant: The name.
        originals: Tag to name and tag in timm; the first is the default. An empty tag is none.
        features_of: See :func:`create`.
        weights: Whether timm hosts weights of all of it.
        defaults: Keywords of :func:`create` by default.
    """
    holder = sys.modules[module]
    cfgs = {
        f"{variant}.{tag}" if tag else variant: config(original, weights=weights) for tag, original in originals.items()
    }
    holder.default_cfgs.update(generate_default_cfgs(cfgs))

    def entry(pretrained: bool = False, **kwargs: Any) -> Any:
        return create(variant, originals, features_of, pretrained, **{**defaults, **kwargs})

    entry.__name__ = entry.__qualname__ = variant
    entry.__module__ = module
    entry.__doc__ = f"timm's {' or '.join(dict.fromkeys(n.split('.')[0] for n in originals.values()))}, adapted."
    setattr(holder, variant, register_model(entry))
