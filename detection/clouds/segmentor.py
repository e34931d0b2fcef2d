"""Segmentation of clouds by any timm model that takes voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from mmseg.models.losses.lovasz_loss import lovasz_softmax_flat
from torch import Tensor

from visionpe.checks import check_choice, check_number
from visionpe.detection.clouds.mixing import mix_pairs
from visionpe.detection.models.classifier import check_model_name
from visionpe.detection.models.init_cfg import KeepsLoadedWeights
from visionpe.detection.running.checkpoint import load_weights, read_state
from visionpe.sparse import Voxels

Votes = Literal["scores", "softmax"]


@MODELS.register_module()
class CloudPreprocessor(BaseDataPreprocessor):
    """Bring clouds to the device of the model, which puts those of a batch together.

    Args:
        mix: How often in training the clouds of a batch become half as many, see
            :func:`~visionpe.detection.clouds.mixing.mix_pairs`; 0..1.
        **kwargs: Further keywords of mmengine's ``BaseDataPreprocessor``.
    """

    def __init__(self, mix: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mix = check_number("mix", mix, 0, 1)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepare a batch.

        Args:
            data: ``inputs``, a list of voxels; ``data_samples``.
            training: Whether clouds may be mixed.

        Returns:
            The same on the device.
        """
        clouds = [cloud.to(self.device) for cloud in data["inputs"]]
        samples = self.cast_data(data.get("data_samples"))
        if training and self.mix and np.random.uniform() < self.mix:  # noqa: NPY002  mmengine seeds it
            clouds, samples = mix_pairs(clouds, samples)
        return {"inputs": clouds, "data_samples": samples}


def _views(voxels: Voxels) -> list[Voxels]:
    """The clouds of a batch as batches of one."""
    parts = zip(*(voxels.split(t) for t in (voxels.features, voxels.coords, voxels.signals)))
    alone = [Voxels(features, coords.clone(), signals, voxels.stride) for features, coords, signals in parts]
    for view in alone:
        view.coords[:, 0] = 0
    return alone


@MODELS.register_module()
class CloudSegmentor(KeepsLoadedWeights, BaseModel):
    """A timm model over voxels with its losses, and its scores for every point of a cloud.

    Args:
        model_name: Name for ``timm.create_model``; ``model(voxels)`` gives scores ``(N, num_classes)``.
        num_classes: Number of classes.
        ignore_index: Label that counts neither in the loss nor in its accuracy.
        class_weight: What a voxel of each class counts in the loss; 1 by default.
        lovasz: What the Lovász loss, which bounds the IoU, weighs beside the cross-entropy; the mean over the classes
            that are there (arXiv 1705.08790).
        votes: Of several views, which are averaged: ``scores``, each row by its absolute sum, as Swin3D's, or
            ``softmax``, as Point Transformer V3's.
        data_preprocessor: Config of the data preprocessor; ``CloudPreprocessor`` by default.
        init_cfg: ``dict(type="Pretrained", checkpoint=...)`` loads weights that must fit; with ``filtered=True`` those
            of the encoder, as Swin3D's fine-tuning does: without the decoder, and with ``skip_first_conv=True`` (the
            default) without the stem.
        **kwargs: Further keywords for ``timm.create_model``.

    Raises:
        ValueError: If ``model_name`` is unknown, or ``class_weight`` is not one number a class.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        model_name: str,
        *,
        num_classes: int,
        ignore_index: int = 255,
        class_weight: Sequence[float] | None = None,
        lovasz: float = 0.0,
        votes: Votes = "scores",
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        check_model_name(model_name)
        if class_weight is not None and len(class_weight) != num_classes:
            raise ValueError(f"class_weight has {len(class_weight)} numbers for num_classes={num_classes}")
        check_choice("votes", votes, Votes)
        super().__init__(data_preprocessor or {"type": "CloudPreprocessor"}, init_cfg)
        self.model_name, self.model_kwargs = model_name, {"num_classes": num_classes, **kwargs}
        self.num_classes, self.ignore_index, self.votes = num_classes, ignore_index, votes
        self.lovasz = check_number("lovasz", lovasz, 0)
        weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float32)
        self.register_buffer("class_weight", weight, persistent=False)
        self.model = timm.create_model(model_name, **self.model_kwargs)

    def load_weights(self, checkpoint: str, *, prefix: str = "") -> None:
        """Load weights, as ``init_cfg`` says.

        Args:
            checkpoint: A file or URL that mmengine knows; a local file where ``filtered``.
            prefix: Only what is below this name in the file.

        Raises:
            ValueError: If they do not fit, or no weight of the encoder is in the file.
        """
        configs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        options = next((c for c in configs if c.get("checkpoint") == checkpoint), {})
        if options.get("filtered"):
            found = self.model.load_filtered(checkpoint, skip_first_conv=options.get("skip_first_conv", True))
            text = (
                f"Loaded {len(found.loaded)} tensors from {checkpoint}; {len(found.skipped)} others in it were not used"
            )
            print_log(text, logger="current")
            return
        state = {k.removeprefix(prefix): v for k, v in read_state(checkpoint).items() if k.startswith(prefix)}
        load_weights(self, state, source=f"init_cfg: checkpoint {checkpoint!r}")
        print_log(f"Loaded {len(state)} tensors from {checkpoint}", logger="current")

    def forward(
        self,
        inputs: Voxels | Sequence[Voxels],
        data_samples: Sequence[BaseDataElement] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Any:
        """Scores, losses or predictions.

        Args:
            inputs: Voxels of a batch of clouds, or a list of clouds; each may hold several views to predict from.
            data_samples: One a cloud, as ``PackCloud`` and ``CloudVotes`` make them.
            mode: ``tensor`` gives scores of voxels ``(N, num_classes)``, ``loss`` the losses, ``predict`` the samples
                with ``pred_sem_seg.data`` ``(P,)`` and ``seg_logits.data`` ``(P, num_classes)`` for all points.

        Raises:
            ValueError: If ``mode`` is unknown, or ``data_samples`` are needed and missing.
        """
        if mode not in ("tensor", "loss", "predict"):
            raise ValueError(f"mode={mode!r} is unknown; allowed: tensor, loss, predict")
        if mode != "tensor" and data_samples is None:
            raise ValueError(f"mode={mode!r} needs data_samples")
        samples = data_samples or []
        if mode == "predict":
            clouds = _views(inputs) if isinstance(inputs, Voxels) else inputs
            return [self._predict(cloud, sample) for cloud, sample in zip(clouds, samples)]
        scores = self.model(inputs if isinstance(inputs, Voxels) else Voxels.collate(inputs))
        return scores if mode == "tensor" else self._loss(scores, torch.cat([s.gt_sem_seg.data for s in samples]))

    def _loss(self, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        counted = labels != self.ignore_index
        if not counted.any():  # no label at all: 0, not NaN
            return {"loss": 0 * scores.sum(), "accuracy": scores.new_zeros(())}
        loss = F.cross_entropy(scores.float(), labels, self.class_weight, ignore_index=self.ignore_index)
        losses = {"loss": loss}
        if self.lovasz:
            shares = scores[counted].float().softmax(1)
            losses = {"loss_ce": loss, "loss_lovasz": self.lovasz * lovasz_softmax_flat(shares, labels[counted])}
        with torch.no_grad():
            right = 100 * (scores.argmax(1) == labels)[counted].float().mean()
        return {**losses, "accuracy": right}

    def _predict(self, voxels: Voxels, sample: BaseDataElement) -> BaseDataElement:
        rows = sample.inverse.data  # (views, P)
        views = [voxels] if len(rows) == 1 else _views(voxels)
        scores = torch.zeros((), device=rows.device)
        for view, row in zip(views, rows):
            of_view = self.model(view).float()[row]
            if len(rows) > 1:  # raw scores, not probabilities: Swin3D's results with votes are averages of these
                of_view = of_view.softmax(1) if self.votes == "softmax" else F.normalize(of_view, p=1, dim=1)
            scores = scores + of_view / len(rows)
        sample.seg_logits = BaseDataElement(data=scores)
        sample.pred_sem_seg = BaseDataElement(data=scores.argmax(1))
        return sample
