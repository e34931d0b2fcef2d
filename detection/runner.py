"""From a config file to a Runner: what ``tools/train.py`` and ``tools/test.py`` share."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .checkpoint import load_weights, read_state
from .data_check import check_data
from .quiet import ConsoleFilter


class UsageError(Exception):
    """A mistake in what the user gave; its text is all the user needs to see."""


@RUNNERS.register_module()
class QuietRunner(Runner):
    """mmengine's Runner with a console that shows warnings and progress; the log file still holds everything."""

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Build the logger, with :class:`~visionpe.detection.quiet.ConsoleFilter` on its console."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.addFilter(ConsoleFilter())
        return logger


def load_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config file.

    Args:
        path: Path of the file.
        options: Overrides by dotted key, as ``--cfg-options`` gives them.

    Returns:
        The config, with ``work_dir`` set to ``work_dirs/<path below configs/, without suffix>`` if it had none.

    Raises:
        UsageError: If there is no such file; names the nearest ones beside it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        beside = [str(near) for near in file.parent.glob("*.py")] if file.parent.is_dir() else []
        near = difflib.get_close_matches(str(file), beside, n=3)
        raise UsageError(f"config {path!r} does not exist" + (f"; did you mean {', '.join(near)}?" if near else ""))
    config = Config.fromfile(str(file))
    config.merge_from_dict(options or {})
    if config.get("work_dir") is None:
        parts = file.resolve().with_suffix("").parts
        below = parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts else parts[-1:]
        config.work_dir = str(Path("work_dirs", *below))
    return config


def set_seed(config: Config, seed: int | None) -> None:
    """Put ``seed`` into the config, if one is given."""
    if seed is not None:
        config.randomness = {**config.get("randomness", {}), "seed": seed}


def set_launcher(config: Config, launcher: str) -> None:
    """Prepare distribution; under ``torchrun`` without a GPU, gloo takes the place of NCCL.

    Args:
        config: The config, changed in place.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        UsageError: If the launcher cannot work here.
    """
    config.launcher = launcher
    if launcher == "none" or torch.cuda.is_available():
        return
    if launcher != "pytorch":
        raise UsageError(f"--launcher {launcher} needs GPUs; without them use torchrun and --launcher pytorch")
    if "RANK" not in os.environ:
        raise UsageError("--launcher pytorch runs under torchrun: torchrun --nproc-per-node N tools/train.py ...")
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

    Args:
        config: The config, changed in place.

    Raises:
        UsageError: If the optimizer wrapper is of a kind of its own.
    """
    kind = config.optim_wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper", "AutocastOptimWrapper"):
        raise UsageError(f"--amp replaces OptimWrapper; the config has optim_wrapper.type={kind!r}")
    if not torch.cuda.is_available():
        config.optim_wrapper.type = "AutocastOptimWrapper"
        return
    config.optim_wrapper.type = "AmpOptimWrapper"
    config.optim_wrapper.dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def build_runner(config: Config, *, stages: tuple[str, ...]) -> Runner:
    """Build the Runner of a config.

    Args:
        config: The config.
        stages: Whose data must be there: of ``train``, ``val``, ``test``.

    Returns:
        The Runner; ``runner_type`` in the config names another class.

    Raises:
        UsageError: If a data set is missing.
    """
    try:
        check_data(config, stages)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    config.setdefault("runner_type", "QuietRunner")
    return RUNNERS.build(config)


def existing(checkpoint: str) -> str:
    """Return the path of a checkpoint.

    Raises:
        UsageError: If it is a local path and no such file exists.
    """
    if "://" not in checkpoint and not Path(checkpoint).expanduser().is_file():
        raise UsageError(f"checkpoint {checkpoint!r} does not exist")
    return checkpoint


def load_strictly(runner: Runner, checkpoint: str) -> None:
    """Load weights into the model of ``runner``: all of them, or none.

    Args:
        runner: A Runner that has not started.
        checkpoint: A ``.pth`` or ``.safetensors`` file.

    Raises:
        UsageError: If the weights do not fit the model.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    try:
        load_weights(model, read_state(checkpoint), source=f"checkpoint {checkpoint!r}")
    except ValueError as error:
        raise UsageError(str(error)) from None
