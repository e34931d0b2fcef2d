"""What a config for point clouds says of the fields of published recipes; beside :mod:`recipe_readers`."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from recipe_readers import READERS, dataset, network, optimizer, reads, schedule, steps, train


@reads("voxel, metres")
def _voxel(config: Config) -> float:
    (step,) = train(config, "VoxelizeCloud")
    return step.size


@reads("cycle: warm-up, first and last rate")
def _cycle(config: Config) -> list[float]:
    step = schedule(config, "GroupOneCycleLR")
    assert step.total_steps == config.train_cfg.max_epochs
    return [step.pct_start, 1 / step.div_factor, 1 / step.div_factor / step.final_div_factor]


@reads("first moment in a cycle")
def _moment(config: Config) -> list[float]:
    falling, rising = (step for step in config.param_scheduler if step["type"] == "CosineAnnealingMomentum")
    warm = schedule(config, "GroupOneCycleLR").pct_start * config.train_cfg.max_epochs
    assert (falling.end, rising.begin, rising.end) == (warm, warm, config.train_cfg.max_epochs)
    return [optimizer(config).betas[0], falling.eta_min, rising.eta_min]


@reads("losses")
def _losses(config: Config) -> str:
    return f"cross-entropy + {config.model.lovasz:g} x Lovasz"


@reads("turned about z, x, y, degrees")
def _turned(config: Config) -> list[float]:
    found = train(config, "RotateCloud")
    assert [(step.axis, step.prob, step.degrees[0]) for step in found] == [
        (axis, 0.5, -step.degrees[1]) for axis, step in zip("zxy", found)
    ]
    return [step.degrees[1] for step in found]


@reads("contrast, shift and jitter of colours")
def _colours(config: Config) -> list[float]:
    (contrast,), (shift,), (jitter,) = (train(config, f"{name}Color") for name in ("Contrast", "Shift", "Jitter"))
    return [contrast.prob, shift.prob, shift.ratio, jitter.prob, jitter.sigma]


@reads("elastic distortion, metres")
def _elastic(config: Config) -> Any:
    found = train(config, "ElasticCloud")
    assert all(step.prob == 0.95 for step in found)
    return [number for each in found[0].steps for number in each] if found else "none"


@reads("a voxel of several points at test time")
def _several(config: Config) -> str:
    (step,) = steps(dataset(config, "test").pipeline, "VoxelizeCloud")
    return f"its {step.keep} point"


READERS |= {
    "voxels at most": lambda c: train(c, "CropCloud")[-1].max_voxels,
    "share of the voxels": lambda c: train(c, "CropCloud")[0].share,
    "batch of all GPUs": lambda c: c.auto_scale_lr.base_batch_size,
    "scenes mixed": lambda c: c.model.data_preprocessor.mix,
    "points dropped": lambda c: [train(c, "DropPoints")[0].share, train(c, "DropPoints")[0].prob],
    "mirrored": lambda c: train(c, "FlipCloud")[0].prob,
    "views at test time": lambda c: len(dataset(c, "test").pipeline[0].views),
    "voxels of a patch": lambda c: network(c).patch_size,
    "colours dropped": lambda c: train(c, "DropColor")[0].prob,
    "scaled by": lambda c: list(train(c, "ScaleCloud")[0].scales),
    "jitter, metres": lambda c: [train(c, "JitterCloud")[0].sigma, train(c, "JitterCloud")[0].clip],
}
