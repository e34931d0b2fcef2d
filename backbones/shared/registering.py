"""From a family of backbones to names in timm: every encoding in every size."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet

from visionpe.backbones.shared.arguments import check_image_size
from visionpe.backbones.shared.fit import refuse_missing
from visionpe.backbones.shared.loading import checkpoint_filter_fn, size_of_weights
from visionpe.base import PositionEncoding
from visionpe.checks import shown
from visionpe.policy.apply import build_policy
from visionpe.policy.sizes import as_size
from visionpe.registry import get_encoding, names_of, on_register


def base_cfg(**changes: Any) -> dict[str, Any]:
    """Preprocessing of a model without published weights, in timm's terms."""
    return {
        "input_size": (3, 224, 224),
        "num_classes": 1000,
        "mean": timm.data.IMAGENET_DEFAULT_MEAN,
        "std": timm.data.IMAGENET_DEFAULT_STD,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
    } | changes


# What is known of published weights.
COPIED = ("hf_hub_id", "url", "input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "license")


def timm_cfg(timm_name: str, **changes: Any) -> dict[str, Any]:
    """Weight source, preprocessing and classes as timm states them for the same file."""
    source = timm.get_pretrained_cfg(timm_name, allow_unregistered=False)
    known = {key: getattr(source, key) for key in (*COPIED, "num_classes")}
    return base_cfg(**{key: value for key, value in known.items() if value is not None}, **changes)


class FeatureGetter(FeatureGetterNet):
    """timm's feature extractor, which loads files of the model inside as well, and is saved with what that is.

    Features come in the order of ``out_indices``, as ``feature_info`` tells of them.
    """

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def num_features(self) -> int:
        return self.model.num_features

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm writes beside the weights: its own keywords, and those of the model inside as it is now."""
        given = {**self.__dict__.get("given_arguments", {}), "out_indices": tuple(self.out_indices)}
        return given | getattr(self.model, "_model_args", {})

    @_model_args.setter
    def _model_args(self, given: dict[str, Any]) -> None:
        self.__dict__["given_arguments"] = dict(given)

    @property
    def _traits(self) -> dict[str, Any]:
        return self.model._traits

    @_traits.setter
    def _traits(self, traits: dict[str, Any]) -> None:
        self.model._traits = traits

    def forward(self, x: Any) -> Any:
        """What the model takes to the features asked for."""
        features = super().forward(x)
        in_order = sorted(set(self.out_indices))
        return [features[in_order.index(i)] for i in self.out_indices]

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """A state dict of this extractor, or of the model in any layout that it knows."""
        if any(key.startswith("model.") for key in state_dict):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        return self.model.load_state_dict(state_dict, strict=strict, assign=assign)

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """A file in a format of its own (``.npz``, ``.pkl``), where the model inside reads it.

        Raises:
            NotImplementedError: If it does not.
        """
        if not hasattr(self.model, "load_pretrained"):
            raise NotImplementedError(f"{type(self.model).__name__} cannot read {checkpoint_path}")
        self.model.load_pretrained(checkpoint_path, prefix)


def _pair(value: Any, what: str) -> tuple[int, int]:
    return as_size(tuple(value) if isinstance(value, list) else value, what)


@dataclass(frozen=True)
class Family:
    """Backbones that are registered together: ``<name>_<size>`` as published, and ``<encoding>_<name>_<size>``.

    Args:
        name: As in model names.
        model: The class.
        sizes: Size -> keywords of its constructor.
        default: Specification of the published encoding; None where no name goes without one.
        module: ``__name__`` of the module that holds the names.
        cfgs: ``cfgs(prefix, size)`` gives tag -> timm's default_cfg, the first being the default.
        out_indices: Features that ``features_only`` gives by default.
        specs: Encoding -> its specification in this family, where options differ from those of the encoding.
        takes: Whether an encoding can work in this family at all; no name is registered where not.
        of_features: Keywords of the constructor by default where ``features_only`` is asked for.
        carries: Whether blocks hand on what an encoding carries beside the tokens.
    """

    name: str
    model: type
    sizes: Mapping[str, dict[str, Any]]
    default: Any
    module: str
    cfgs: Callable[[str, str], dict[str, dict[str, Any]]] = lambda prefix, size: {"": base_cfg()}
    out_indices: Any = (0, 1, 2, 3)
    specs: Mapping[str, Any] = field(default_factory=dict)
    takes: Callable[[type[PositionEncoding]], bool] = lambda encoding: True
    of_features: Mapping[str, Any] = field(default_factory=dict)
    carries: bool = False

    def with_defaults(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keywords, with those that go with features."""
        return {**self.of_features, **kwargs} if kwargs.get("features_only") else kwargs

    def create(
        self,
        variant: str,
        pretrained: bool = False,
        *,
        pretrained_strict: bool = True,
        policy: Any = None,
        trained_size: Any = None,
        trained_patch_size: Any = None,
        window_img_size: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Build a model, as timm's entry points do.

        Args:
            variant: Name of the model.
            pretrained: Load the published weights.
            pretrained_strict: Refuse a file that does not fit.
            policy: What to do at sizes that were not trained, see :func:`visionpe.set_policy`.
            trained_size: Height and width that the weights were or will be trained at, pixels, where that is not
                ``img_size``: policies measure from it, and position tables of files have its shape. It is saved beside
                the weights by timm's ``save_for_hf``.
            trained_patch_size: The same of the patches; default those of the model.
            window_img_size: In Swin and CSWin, the size at which windows have the size given, pixels: windows that grow
                with the map measure from it. Default: as the constructor says.
            kwargs: Of the constructor, and timm's ``features_only``, ``out_indices``, ``pretrained_cfg`` ...

        Raises:
            ValueError: If ``trained_size`` is no size, or the model has no images.
        """
        kwargs = self.with_defaults(kwargs)
        cfg, overlay = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay")
        size = None if trained_size is None else _pair(trained_size, "trained_size")
        patch = None if trained_patch_size is None else _pair(trained_patch_size, "trained_patch_size")
        hub = isinstance(cfg, Mapping) and cfg.get("source") in ("hf-hub", "local-dir")
        # timm before 1.0.31 mixes what was saved beside the weights with the user's keywords.
        saved = kwargs.get("pretrained_model_args", kwargs if hub else None)
        trained = size or size_of_weights(variant, cfg, overlay, saved)
        # Of a file of features alone; what features do not need is known when the model has been cut down.
        lacking: set[str] | None = set() if kwargs.get("features_only") else None
        spec = kwargs.get("pos_encoding")
        model = build_model_with_cfg(
            self.model,
            variant,
            pretrained,
            pretrained_strict=pretrained_strict,
            pretrained_filter_fn=partial(
                checkpoint_filter_fn, strict=pretrained_strict, trained=trained, lacking=lacking
            ),
            feature_cfg={"out_indices": kwargs.pop("out_indices", self.out_indices), "feature_cls": FeatureGetter},
            **kwargs,
        )
        network: Any = model.model if isinstance(model, FeatureGetter) else model
        network.encoding_spec = spec
        if pretrained_strict and lacking:
            refuse_missing(lacking & network.state_dict().keys(), network)
        network.cfg_is_stated = cfg is not None or bool((overlay or {}).get("input_size"))
        if size is not None:
            if getattr(network, "trained_img_size", None) is None:
                raise ValueError(f"trained_size={trained_size!r}: {variant} has no images; allowed: none")
            check_image_size(size, patch or network.trained_patch_size, "trained_size")
            network.set_trained_size(size, patch or network.trained_patch_size)
            network.trained_is_stated = True
        if window_img_size is not None:
            if not hasattr(network, "measure_windows_from"):
                raise ValueError(
                    f"window_img_size={shown(window_img_size)}: {variant} has no such windows; allowed: swin, cswin"
                )
            check_image_size(_pair(window_img_size, "window_img_size"), network.trained_patch_size, "window_img_size")
            network.measure_windows_from(_pair(window_img_size, "window_img_size"))
        return model if policy is None else build_policy(model, policy)

    def register(self, prefix: str, spec: Any) -> None:
        """Register ``<prefix>_<name>_<size>`` in all sizes, without the prefix and its underscore if that is empty."""
        holder = sys.modules[self.module]
        for size, architecture in self.sizes.items():
            variant = f"{prefix}_{self.name}_{size}" if prefix else f"{self.name}_{size}"
            cfgs = {f"{variant}.{tag}" if tag else variant: cfg for tag, cfg in self.cfgs(prefix, size).items()}
            holder.default_cfgs.update(generate_default_cfgs(cfgs))

            def entry(
                pretrained: bool = False,
                *,
                _variant: str = variant,
                _defaults: dict[str, Any] = architecture,
                **kwargs: Any,
            ) -> Any:
                return self.create(_variant, pretrained, **{"pos_encoding": spec, **_defaults, **kwargs})

            entry.__name__ = entry.__qualname__ = variant
            entry.__module__ = self.module
            entry.__doc__ = f"{self.model.__name__} of size {size.upper()} with pos_encoding={spec!r}."
            setattr(holder, variant, register_model(entry))

    def register_all(self) -> None:
        """Register the published names, and those of :meth:`register_encodings`."""
        self.register("", self.default)
        self.register_encodings()

    def register_encodings(self) -> None:
        """Register a name for every encoding that is known now or later."""

        def register(name: str) -> None:
            encoding = get_encoding(name)
            works = self.takes(encoding) and (self.carries or not encoding.carries)
            for prefix in names_of(name) if works else ():
                self.register(prefix, self.specs.get(name, name))

        on_register(register)
