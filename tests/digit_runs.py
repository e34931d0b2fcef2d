"""Tiny runs of tools/train.py on digit scenes: what is overridden in their configs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODELS = {
    "mask_rcnn_rope_vit": ("coco", "coco/bbox_mAP_50"),
    "fcn_cpe_vit": ("ade", "IoU/background"),
    "upernet_rope_vit": ("ade", "mIoU"),
}


def tool(name):
    # By path: a module called "test" would hide the standard library's.
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def options(data, name, iters=2, batch=4, **more):
    """Overrides for a tiny run: a narrow model, few iterations, the scenes in ``data``."""
    root = f"{data}/{MODELS[name][0]}/"
    width = "model.decode_head.in_channels"
    values = {
        **{f"{stage}_dataloader.dataset.data_root": root for stage in ("train", "val", "test")},
        **{f"{stage}_dataloader.num_workers": 0 for stage in ("train", "val", "test")},
        **{f"{stage}_dataloader.persistent_workers": False for stage in ("train", "val", "test")},
        "model.backbone.embed_dim": 16,
        "model.backbone.num_heads": 2,
        "model.backbone.depth": 1,
        "model.backbone.out_indices": [0],
        "model.neck.in_channels": 16,
        "train_dataloader.batch_size": batch,
        "train_cfg.max_iters": iters,
        "train_cfg.val_interval": iters,
        "default_hooks.logger.interval": 1,
        "default_hooks.checkpoint.interval": 1,
        "param_scheduler.0.end": 1,
    }
    if root.endswith("coco/"):
        file = f"{root}annotations/instances_val2017.json"
        values |= {f"{stage}_evaluator.ann_file": file for stage in ("val", "test")}
    elif name.startswith("fcn"):
        values |= {"model.neck.out_channels": 8, width: 8, "model.decode_head.channels": 8}
    return [f"{key}={value}" for key, value in {**values, **more}.items()]


def config(name):
    return f"configs/digits/{name}.py"
