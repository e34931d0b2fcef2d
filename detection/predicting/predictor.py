"""Predictions for single images with a trained config: what ``tools/predict.py`` and the quickstarts use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from numpy.typing import NDArray
from PIL import Image

from visionpe.detection.data.pictures import decode
from visionpe.detection.running.building import clear_builds
from visionpe.detection.running.kinds import kind_name
from visionpe.detection.running.runner import drop_pretrained, load_strictly
from visionpe.utils.pictures import read_bytes

ANNOTATIONS = ("LoadAnnotations", "LoadPanopticAnnotations", "LoadProposals")


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture, by the rules of :func:`visionpe.utils.pictures.decode_picture`.

    Args:
        path: A JPEG, PNG or another format of Pillow.

    Returns:
        ``(height, width, 3)``, BGR.

    Raises:
        InputError: If there is no such file, or it is no picture.
    """
    return decode(read_bytes(path), path)


class Predictor:
    """A trained model that takes pictures of any size.

    Args:
        config: A config of mmpretrain, mmdet or mmseg; its test pipeline prepares the pictures.
        checkpoint: Weights that fit it: ``.pth`` or ``.safetensors``.
        device: Where it runs; the best there is by default.

    Attributes:
        scope: ``mmpretrain``, ``mmdet`` or ``mmseg``.
        meta: ``classes`` and ``palette`` of the test data, where known.

    Raises:
        InputError: If the weights do not fit.
    """

    def __init__(self, config: Config, checkpoint: str, device: str | None = None) -> None:
        self.scope = config.get("default_scope", "mmengine")
        init_default_scope(self.scope)
        drop_pretrained(config.model)
        with clear_builds(config):
            self.model = revert_sync_batchnorm(MODELS.build(config.model))
        load_strictly(self.model, checkpoint)
        self.model.to(device or get_device()).eval()
        dataset = config.test_dataloader.dataset
        while "dataset" in dataset:
            dataset = dataset.dataset
        self.meta = self._metainfo(dataset)
        steps = [step for step in dataset.pipeline if kind_name(step) not in ANNOTATIONS]
        # Data sets in memory have no step that loads.
        self.in_memory = not kind_name(steps[0]).startswith("Load")
        self.pipeline = Compose(steps if self.in_memory else steps[1:])

    @staticmethod
    def _metainfo(dataset: Mapping) -> dict[str, Any]:
        # By itself the root registry does not look into that of the default scope.
        kind = dataset["type"]
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind) if isinstance(kind, str) else kind
        given = dict(dataset.get("metainfo") or {})
        meta = {**getattr(kind, "METAINFO", {}), **given}
        if "classes" in given and "palette" not in given:
            meta.pop("palette", None)
        return meta

    def _picture(self, image: NDArray[np.uint8]) -> Any:
        """The picture as the first step of the pipeline takes it."""
        if not self.in_memory:
            return image
        # mmpretrain's data in memory: a PIL image in the model's channels and size.
        options = self.model.model_kwargs
        picture = Image.fromarray(image[..., ::-1]).convert("L" if options.get("in_chans") == 1 else "RGB")
        size = options.get("img_size")
        return picture.resize((size, size), Image.Resampling.BICUBIC) if isinstance(size, int) else picture

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> Any:
        """Predict.

        Args:
            image: ``(height, width, 3)``, BGR.

        Returns:
            The data sample of mmpretrain, mmdet or mmseg, on the CPU, in pixels of ``image``.
        """
        shape = image.shape[:2]
        results = {"img": self._picture(image), "img_id": 0, "img_path": "", "img_shape": shape, "ori_shape": shape}
        batch = pseudo_collate([self.pipeline(results)])
        return self.model.test_step(batch)[0].cpu()
