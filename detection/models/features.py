"""Any timm model as a backbone of mmdet and mmseg."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visionpe import set_policy
from visionpe.checks import check_count, check_flag, shown
from visionpe.detection.models import uneven_sizes
from visionpe.detection.models.classifier import check_model_name
from visionpe.detection.models.extractor import (
    asked_of_timm,
    axis_strides,
    create_extractor,
    freeze,
    size_divisor,
    wanted_indices,
)
from visionpe.detection.models.feature_norms import added_norms
from visionpe.detection.models.features_weights import load_backbone, start_norms
from visionpe.detection.models.init_cfg import KeepsLoadedWeights


@MODELS.register_module()
class TimmFeatures(KeepsLoadedWeights):
    """The features of a timm model: maps ``(B, C, height, width)`` at ``out_indices``, for a neck or a head.

    Any input size runs that the model is able to take. Images that it cannot cut evenly are padded with zeros below and
    right, and features are cropped to ``ceil(size / stride)``. timm initialises (or loads) a model when it builds it;
    ``init_weights`` here only obeys ``init_cfg``, so that nothing wipes loaded weights.

    A model of timm's whose positions are known is adapted on the way, see :func:`visionpe.adapt`; another one runs as
    timm built it. Weights load from files of both, checkpoints of earlier trainings included.

    Args:
        model_name: Name for ``timm.create_model``; the model must have ``forward_intermediates``.
        out_indices: Stages (blocks in a plain ViT) whose features are given, in this order, from 0; negative ones count
            from the end. One number: so many of the last, as timm has it. Of most convolutional networks the stem is
            the first stage, so that ``out_indices=4`` gives what detectors call C2 to C5.
        pretrained: Load the weights that timm knows for ``model_name``, downloading them if need be.
        checkpoint_path: Load these weights at construction: a published file, ``model.safetensors`` of the exporter,
            or a ``.pth`` of mmengine. They must fit; the classifier and what the features do not need are left out.
        init_cfg: ``dict(type="Pretrained", checkpoint=..., prefix=...)`` loads in the same way, but when training
            begins; ``prefix`` names the part of the file, such as ``"backbone."``.
        frozen_stages: -1 for none, 0 for the stem (with the positions of a plain ViT), n for the stem and the first n
            stages (blocks in a plain ViT), as the model's ``group_matcher`` counts them. Frozen parts take no
            gradient and stay in evaluation mode.
        drop_path_rate: Stochastic depth, 0 to 1; None for the model's own default.
        norm_eval: Batch norms stay in evaluation mode: they keep the statistics of the weights that were loaded, as
            detectors with few images a GPU want it. Their own weights are trained.
        with_cp: Recompute activations in the backward pass to save memory.
        autocast: ``"bfloat16"`` runs the backbone, and nothing else, in mixed precision. Features keep the dtype of
            the images: detectors cast their boxes to that of the features, and bfloat16 rounds 1001 to 1000.
        policy: What the position encodings do at sizes they were not trained at, see :func:`visionpe.set_policy`.
        channels: Expected channels of the features; a guard against a neck that was written for another backbone.
        strides: Expected strides of the features, pixels; (vertical, horizontal) where patches are not square.
        fresh_norms: Norms of the features (``feature_norms=True``) start at the identity, as in the published detectors
            and segmentors on Swin and CSWin; otherwise the last is the final norm of a classifier whose weights are
            loaded. Of a file by ``checkpoint_path`` or ``init_cfg`` that has them all they are loaded in any case.
            Those that models of timm's get by ``feature_norms=True`` always start so.
        adapt: False takes a model of timm's as timm builds it, for any size where it knows how.
        final_norm: All features go through the norm behind the last stage, as linear classifiers of frozen features
            have it; only where the model can.
        pad_to: Pad images to a multiple of this, pixels. Default: the side of a patch where the model cuts images into
            patches (it pads what follows by itself), the largest stride otherwise.
        **kwargs: Further keywords for ``timm.create_model``: ``pos_encoding`` (of adapted models too, ``"+alibi"``
            besides what they have), ``feature_norms`` (a norm for each map), ``img_size`` (pixels at which the
            weights were trained), ``in_chans``, ``output_stride`` (of convolutional networks, 8, 16 or 32: the stages
            beyond are dilated in place of strided), a model's own.

    Attributes:
        model: The timm model.
        channels: Channels of the features.
        strides: Strides of the features, pixels; (vertical, horizontal) where patches are not square.

    Raises:
        ValueError: If the model is unknown or gives no features, an index or ``frozen_stages`` is out of range,
            ``channels`` or ``strides`` differ from what is there, ``fresh_norms`` are asked of a model without, or
            weights or ``policy`` do not fit.
    """

    def __init__(
        self,
        model_name: str,
        *,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        init_cfg: dict | list[dict] | None = None,
        frozen_stages: int = -1,
        drop_path_rate: float | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        autocast: Literal["bfloat16"] | None = None,
        policy: str | None = None,
        channels: Sequence[int] | None = None,
        strides: Sequence[Any] | None = None,
        fresh_norms: bool = False,
        adapt: bool = True,
        final_norm: bool = False,
        pad_to: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        uneven_sizes.install()
        if autocast not in (None, "bfloat16"):
            raise ValueError(f"autocast={autocast!r} is unknown; allowed: None, 'bfloat16'")
        check_model_name(model_name)
        if drop_path_rate is not None:
            kwargs["drop_path_rate"] = drop_path_rate
        if kwargs.get("class_token") is False:
            kwargs.setdefault("global_pool", "avg")  # features are not pooled; models want to hear of it
        self.model_name, self.model_kwargs, self.autocast = model_name, kwargs, autocast
        check_count("frozen_stages", frozen_stages, -1)
        check_flag("with_cp", with_cp)
        self.adapt = check_flag("adapt", adapt)
        self.final_norm = check_flag("final_norm", final_norm)
        self.fresh_norms = check_flag("fresh_norms", fresh_norms)
        self.norm_eval = check_flag("norm_eval", norm_eval)
        getter = create_extractor(
            model_name, wanted_indices(out_indices), bool(pretrained), kwargs, adapt=adapt, final_norm=final_norm
        )
        self.model: Any = getter.model
        if not hasattr(self.model, "convert_state"):  # no keyword of timm's models
            self.model_kwargs = {key: value for key, value in kwargs.items() if key != "feature_norms"}
        self.out_indices = tuple(getter.feature_info.out_indices)
        self.in_order = sorted(set(self.out_indices))  # as models give features, whatever the order asked for
        self.channels: list[int] = list(getter.feature_info.channels())
        self.steps = axis_strides(self.model, getter.feature_info.reduction())
        self.strides: list[int | tuple[int, int]] = [
            down if down == right else (down, right) for down, right in self.steps
        ]
        expected = (("channels", channels, self.channels), ("strides", strides, self.strides))
        for name, wanted, found in expected:
            if wanted is not None and (isinstance(wanted, str) or not isinstance(wanted, Sequence)):
                raise TypeError(f"{name}={shown(wanted)} is no sequence; allowed: {found}, as {model_name!r} has")
            if wanted is not None and [tuple(w) if isinstance(w, list) else w for w in wanted] != found:
                raise ValueError(
                    f"{name}={list(wanted)} is expected of {model_name!r}, which has {found} "
                    f"at out_indices={self.out_indices}"
                )
        self.pad_to = size_divisor(self.model, self.steps) if pad_to is None else check_count("pad_to", pad_to)
        if fresh_norms and not isinstance(getattr(self.model, "norms", None), nn.ModuleList):
            raise ValueError(f"fresh_norms=True: {model_name!r} has no norms of its features; allowed: False")
        if fresh_norms and pretrained:
            start_norms(self.model)
        if policy is not None:
            set_policy(self.model, policy)
        if checkpoint_path:
            self.load_weights(checkpoint_path)
        if with_cp:
            self.model.set_grad_checkpointing(True)
        self.frozen_stages = frozen_stages
        self._frozen = freeze(self.model, model_name, frozen_stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images ``(B, C, H, W)`` to features ``(B, channels, ceil(H / stride), ceil(W / stride))``, of their dtype.

        Raises:
            ValueError: If the model gives maps of other sizes, which a larger ``pad_to`` mends.
        """
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % self.pad_to, 0, -height % self.pad_to))
        # Inside an outer autocast the inner one must not switch it off.
        context = torch.autocast(x.device.type, torch.bfloat16) if self.autocast else contextlib.nullcontext()
        with context:
            features = self.model.forward_intermediates(
                padded, indices=self.in_order, norm=self.final_norm, output_fmt="NCHW", intermediates_only=True
            )
            if (norms := added_norms(self.model)) is not None:
                features = norms(features, self.in_order)
        outputs = []
        for index, (down, right) in zip(self.out_indices, self.steps):
            feature = features[self.in_order.index(index)]
            size = (-(-height // down), -(-width // right))
            if feature.shape[-2] < size[0] or feature.shape[-1] < size[1]:
                raise ValueError(
                    f"{self.model_name!r} makes a map of {tuple(feature.shape[-2:])} of images of {height} x {width} "
                    f"pixels, stride {down, right} asks for {size}; give pad_to={max(map(max, self.steps))}, it is "
                    f"{self.pad_to}"
                )
            if feature.shape[-2] * down > padded.shape[-2] + 2 * down or (
                feature.shape[-1] * right > padded.shape[-1] + 2 * right
            ):
                raise ValueError(
                    f"{self.model_name!r} makes a map of {tuple(feature.shape[-2:])} of images of "
                    f"{padded.shape[-2]} x {padded.shape[-1]} pixels: its feature_info tells a stride of {down, right}"
                )
            outputs.append(feature[..., : size[0], : size[1]].to(x.dtype))  # (B, channels, height, width)
        return tuple(outputs)

    def load_weights(self, checkpoint: str, *, prefix: str = "") -> None:
        """Load weights into the model: all it needs, or an error.

        Args:
            checkpoint: A file as ``checkpoint_path`` takes it, or a URL that mmengine knows.
            prefix: Only what is below this name in the file, such as ``"backbone."``.

        Raises:
            ValueError: If the weights do not fit; the first offending names are given.
        """
        count = load_backbone(
            self.model, checkpoint, prefix=prefix, names=self._all_names, fresh_norms=self.fresh_norms
        )
        print_log(f"Loaded {count} tensors from {checkpoint} into {self.model_name}", logger="current")

    def _all_names(self) -> set[str]:
        """Names of the weights of the whole model, with the parts that features do not need."""
        with torch.device("meta"):
            asked = asked_of_timm(self.model_name, self.model_kwargs, adapt=self.adapt)
            return set(timm.create_model(**{"num_classes": 1, **asked}).state_dict())

    def train(self, mode: bool = True) -> TimmFeatures:
        """Training mode, but for the frozen parts, and with ``norm_eval`` for batch norms."""
        super().train(mode)
        norms = [m for m in self.modules() if isinstance(m, _BatchNorm)] if getattr(self, "norm_eval", False) else []
        for module in (*getattr(self, "_frozen", ()), *norms):
            module.eval()
        return self
