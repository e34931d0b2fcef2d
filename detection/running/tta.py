"""Test-time augmentation: as the config states it, or both sides of each picture."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict

from visionpe.detection.running.data_check import datasets, evaluators
from visionpe.detection.running.kinds import kind_name
from visionpe.utils.errors import InputError

# What merges the predictions of one picture, where the config does not say.
MERGERS: dict[str, dict[str, Any]] = {
    "mmdet": {
        "type": "DetTTAModel",
        "tta_cfg": {"nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100},
    },
    "mmseg": {"type": "SegTTAModel"},
    "mmpretrain": {"type": "AverageClsScoreTTA"},
}
META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def flipped(pipeline: list[dict[str, Any]], scope: str) -> list[dict[str, Any]]:
    """A test pipeline that gives each picture as it is, and mirrored.

    Args:
        pipeline: The test pipeline, which ends with packing.
        scope: ``mmdet``, ``mmseg`` or ``mmpretrain``.
    """
    *steps, pack = deepcopy(pipeline)
    # Annotations are of the picture as it is.
    labels = [step for step in steps if "Annotations" in kind_name(step)]
    steps = [step for step in steps if step not in labels]
    in_memory = not any(kind_name(step).startswith("Load") for step in steps)  # PIL's pictures, of mmpretrain
    flip = {"type": "torchvision/RandomHorizontalFlip", "p": 0.0} if in_memory else {"type": "RandomFlip", "prob": 0.0}
    mirrored = {key: 1.0 if value == 0.0 else value for key, value in flip.items()}
    if scope == "mmdet":
        pack["meta_keys"] = tuple(dict.fromkeys((*pack.get("meta_keys", ()), *META)))
    transforms = [[flip, mirrored], *[[step] for step in labels], [pack]]
    return [*steps, {"type": "TestTimeAug", "transforms": transforms}]


def set_tta(config: Config) -> None:
    """Test with augmentation: ``tta_model`` and ``tta_pipeline`` of the config, or flips.

    Args:
        config: The config, changed in place: the model becomes the ``module`` of what merges predictions.

    Raises:
        InputError: If predictions of the model cannot be merged.
    """
    scope = config.get("default_scope")
    if scope not in MERGERS:
        raise InputError(f"--tta is for models of {', '.join(MERGERS)}; the config has default_scope={scope!r}")
    asked = [each.get("metric", "bbox") for _, each in evaluators(config, "test")]
    heads = (config.model.get("roi_head") or {}, config.model)
    if scope == "mmdet" and ("segm" in str(asked) or any(head.get("mask_head") for head in heads)):
        raise InputError(
            "--tta merges boxes alone, as mmdet has it, and the config is for masks too; allowed: detectors of boxes"
        )
    found = [dataset for _, dataset in datasets(config.test_dataloader, "test_dataloader")]
    for dataset in found:
        dataset["pipeline"] = config.get("tta_pipeline") or flipped(list(dataset["pipeline"]), scope)
    config.model = ConfigDict(**(config.get("tta_model") or MERGERS[scope]), module=config.model)
