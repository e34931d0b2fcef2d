"""How a config runs: on several processes, in mixed precision, sharded."""

from __future__ import annotations

import os
from typing import Any

import torch
from mmengine.config import Config

from visionpe.checks import check_count
from visionpe.detection.running.kinds import kind_name
from visionpe.utils.errors import InputError


def set_launcher(config: Config, launcher: str) -> None:
    """Prepare distribution; under ``torchrun`` without a GPU, gloo takes the place of NCCL.

    Args:
        config: The config, changed in place.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        InputError: If the launcher cannot work here.
    """
    config.launcher = launcher
    if launcher == "none" or torch.cuda.is_available():
        return
    if launcher != "pytorch":
        raise InputError(f"--launcher {launcher} needs GPUs; without them use torchrun and --launcher pytorch")
    if "RANK" not in os.environ:
        raise InputError("--launcher pytorch runs under torchrun: torchrun --nproc-per-node N -m visionpe train ...")
    # mmengine's own initialisation, and its default wrapper, would ask for a CUDA device.
    torch.distributed.init_process_group("gloo")
    config.model_wrapper_cfg = {
        "type": "mmengine.MMDistributedDataParallel",
        "device_ids": None,
        "broadcast_buffers": False,
        "find_unused_parameters": config.get("find_unused_parameters", False),
    }


def set_amp(config: Config) -> None:
    """Turn on mixed precision: bfloat16 where the device has it, float16 with loss scaling otherwise.

    In a detector the backbone alone runs in bfloat16: mmdet casts boxes to the dtype of the features, and bfloat16
    rounds 1001 to 1000.

    Args:
        config: The config, changed in place.

    Raises:
        InputError: If the optimizer wrapper is of a kind of its own, or a detector's backbone is no ``TimmFeatures``
            or the GPU has no bfloat16.
    """
    bfloat16 = not torch.cuda.is_available() or torch.cuda.is_bf16_supported()
    if config.get("default_scope") == "mmdet":
        backbone: Any = config.model.get("backbone") or {}
        if kind_name(backbone) != "TimmFeatures" or not bfloat16:
            raise InputError(
                f"--amp for a detector needs a GPU with bfloat16 and model.backbone.type='TimmFeatures', "
                f"which runs alone in it; here it is {kind_name(backbone)!r}"
            )
        backbone.autocast = "bfloat16"
        return
    kind = kind_name(config.optim_wrapper, "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper", "AutocastOptimWrapper"):
        raise InputError(f"--amp replaces OptimWrapper; the config has optim_wrapper.type={kind!r}")
    if not torch.cuda.is_available():
        config.optim_wrapper.type = "AutocastOptimWrapper"
        return
    config.optim_wrapper.type = "AmpOptimWrapper"
    config.optim_wrapper.dtype = "bfloat16" if bfloat16 else "float16"


def set_auto_scale_lr(config: Config) -> None:
    """Scale the learning rate with the batch of all processes together, from that of the recipe.

    Args:
        config: The config, changed in place.

    Raises:
        InputError: If the config does not state the batch of its recipe.
    """
    base = (config.get("auto_scale_lr") or {}).get("base_batch_size")
    if base is None:
        raise InputError(
            "--auto-scale-lr: the config does not say for how many pictures its learning rate is; give "
            "--cfg-options auto_scale_lr.base_batch_size=N"
        )
    try:
        check_count("auto_scale_lr.base_batch_size", base)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None
    config.auto_scale_lr.enable = True


def set_fsdp(config: Config) -> None:
    """Shard parameters, gradients and optimizer over the processes: mmengine's ``FSDPStrategy``.

    Args:
        config: The config, changed in place after :func:`set_launcher`; ``strategy`` in it is kept.

    Raises:
        InputError: If there is no GPU or no launcher.
    """
    if config.launcher == "none" or not torch.cuda.is_available():
        raise InputError(
            "--fsdp needs GPUs and a launcher: torchrun --nproc-per-node N -m visionpe train ... --launcher pytorch"
        )
    config.runner_type = "FlexibleRunner"
    # Parts below a million parameters cost more to gather than they save.
    wrap = {"type": "torch.distributed.fsdp.wrap.size_based_auto_wrap_policy", "min_num_params": 1_000_000}
    config.setdefault("strategy", {"type": "FSDPStrategy", "model_wrapper": {"auto_wrap_policy": wrap}})
