"""From a config file to a Runner: what training, testing and predicting share."""

from __future__ import annotations

import itertools
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from visionpe.detection.data.pictures import install_label_maps
from visionpe.detection.models.neck_check import check_neck
from visionpe.detection.running.building import clear_builds
from visionpe.detection.running.checkpoint import classes_in, load_weights, read_checkpoint, state_in
from visionpe.detection.running.class_check import check_categories, check_folders, check_heads
from visionpe.detection.running.config_check import check_checkpoint, check_numbers, check_sources
from visionpe.detection.running.data_check import check_data
from visionpe.detection.running.modes import set_amp, set_fsdp, set_launcher
from visionpe.detection.running.quiet import ConsoleFilter
from visionpe.detection.running.randomness import ResumableRandomnessHook, seed_samples
from visionpe.detection.running.resume import newest_checkpoint
from visionpe.detection.running.resume_check import check_start
from visionpe.detection.running.wrappers import unwrap_model
from visionpe.utils.configs import find_config
from visionpe.utils.errors import InputError, check_seed, first_line
from visionpe.utils.files import replacing

__all__ = [
    "InputError",
    "QuietRunner",
    "TestingRunner",
    "build_runner",
    "check_checkpoint",
    "drop_pretrained",
    "load_config",
    "load_strictly",
    "set_amp",
    "set_fsdp",
    "set_launcher",
    "set_resume",
    "set_seed",
    "unwrap_model",
]


UsageError = InputError  # its first name
# Endings of the files that mmengine reads as configs.
CONFIGS = (".py", ".yml", ".yaml", ".json")
_RUNS = itertools.count()


@RUNNERS.register_module()
class QuietRunner(Runner):
    """mmengine's Runner with a console that shows warnings and progress, and with checkpoints that are always whole.

    The log file still holds everything. A checkpoint is written under another name and renamed.
    """

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Build the logger, with :class:`~visionpe.detection.running.quiet.ConsoleFilter` on its console."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.addFilter(ConsoleFilter())
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes; without a GPU its batch norms do not wait for each other."""
        model = model if torch.cuda.is_available() else revert_sync_batchnorm(model)
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a loader whose samples draw the same random numbers however often the run was broken off."""
        return seed_samples(Runner.build_dataloader(dataloader, seed, diff_rank_seed), seed)

    def register_custom_hooks(self, hooks: list[Hook | dict]) -> None:
        """Register the config's hooks, and the one by which a resumed run ends as an unbroken one."""
        super().register_custom_hooks(hooks)
        if not any(isinstance(hook, ResumableRandomnessHook) for hook in self.hooks):
            self.register_hook(ResumableRandomnessHook())

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list[Hook | dict] | None = None) -> None:
        """Register hooks; custom ones also where the config has none."""
        super().register_hooks(default_hooks, custom_hooks or [])

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save as mmengine does, but so that a kill leaves no half a file."""
        if "://" in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with replacing(Path(out_dir, filename)) as partial:
            super().save_checkpoint(out_dir, partial.name, *args, **kwargs)


@RUNNERS.register_module()
class TestingRunner(QuietRunner):
    """The Runner of a test, which leaves alone the config that training has put beside the weights.

    A test changes its config: without weights to start from, and merging views with ``--tta``. What it was is in the
    dated folder of its log, ``vis_data/config.py``.
    """

    def dump_config(self) -> None:
        """Write no config into the work directory."""


OURS = (QuietRunner.__name__, TestingRunner.__name__)


def load_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config file.

    Args:
        path: Path of the file, or the name of a shipped config.
        options: Overrides by dotted key, as ``--cfg-options`` gives them.

    Returns:
        The config, with ``work_dir`` set to ``work_dirs/<path below configs/, without suffix>`` if it had none.

    Raises:
        InputError: If there is no such file, naming the nearest ones beside it, or it is no config.
    """
    file = find_config(path)
    if file.suffix not in CONFIGS:
        raise InputError(f"config {path!r}: is no config by its name; allowed: {', '.join(CONFIGS)}")
    try:
        config = Config.fromfile(str(file))
    except InputError:
        raise
    except Exception as error:  # a config is a program, or JSON
        raise InputError(f"config {path!r}: cannot be read ({type(error).__name__}: {first_line(error)})") from error
    try:
        config.merge_from_dict(options or {})
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise InputError(f"--cfg-options: {error.args[0] if error.args else error!s}") from None
    install_label_maps(config.get("default_scope"))
    if config.get("work_dir") is None:
        parts = file.resolve().with_suffix("").parts
        below = parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts else parts[-1:]
        config.work_dir = str(Path("work_dirs", *below))
    return config


def set_seed(config: Config, seed: int | None) -> None:
    """Put ``seed`` into the config, if one is given.

    Raises:
        InputError: If it is out of range.
    """
    check_seed(seed)
    if seed is not None:
        config.randomness = {**config.get("randomness", {}), "seed": seed}


def set_resume(config: Config, checkpoint: str) -> None:
    """Go on from a checkpoint.

    Args:
        config: The config, with its ``work_dir``; changed in place.
        checkpoint: A path, or ``auto`` for the newest in the work directory; without any there, training starts from
            the config's own weights.

    Raises:
        InputError: If there is no such file.
    """
    found = newest_checkpoint(config.work_dir) if checkpoint == "auto" else check_checkpoint(checkpoint)
    config.resume = found is not None
    config.load_from = found or config.get("load_from")


def drop_pretrained(model: dict[str, Any]) -> None:
    """Name no weights to start from, neither in the model nor in its backbone: they come from elsewhere."""
    for part in (model, model.get("backbone") or {}):
        part.update({key: None for key in ("pretrained", "checkpoint_path", "init_cfg") if key in part})


def build_runner(config: Config, *, stages: tuple[str, ...]) -> Runner:
    """Build the Runner of a config.

    Args:
        config: The config.
        stages: Whose data must be there: of ``train``, ``val``, ``test``.

    Returns:
        The Runner; ``runner_type`` in the config names another class.

    Raises:
        InputError: If a number is out of range or a part cannot be built, a data set or the weights to start from are
            missing, annotations or classes do not fit the config or the heads, or the neck does not fit the backbone.
    """
    check_numbers(config, stages)
    check_sources(config)
    try:
        check_data(config, stages)
        check_categories(config, stages)
        check_folders(config, stages)
    except FileNotFoundError as error:
        raise InputError(str(error)) from None
    # mmseg and pycocotools speak of what is not in the user's hands.
    warnings.filterwarnings("ignore", module=r"mmseg\.|mmdet\.")
    if config.get("runner_type") in (None, *OURS):
        config.runner_type = OURS["test" in stages]
    _name_apart(config)
    with clear_builds(config, whole=True):
        runner = RUNNERS.build(config)
    try:
        check_neck(unwrap_model(runner.model))
    except ValueError as error:
        raise InputError(str(error)) from None
    check_heads(unwrap_model(runner.model), config, stages)
    if "train" in stages:
        check_start(unwrap_model(runner.model), config)
    return runner


def _name_apart(config: Config) -> None:
    """Give every run of a process its own logger and visualizer: mmengine keeps them by name and second of start."""
    if config.get("visualizer"):
        config.visualizer.pop("name", None)
    if run := next(_RUNS):
        config.experiment_name = f"{config.get('experiment_name') or Path(config.filename or 'run').stem}_{run}"


def load_strictly(model: nn.Module, checkpoint: str) -> tuple[str, ...] | None:
    """Load weights into ``model``: all of them, or none.

    Args:
        model: A whole model, wrapped or not.
        checkpoint: A ``.pth`` or ``.safetensors`` file.

    Returns:
        Names of the classes that the model was trained on, in the order of labels; None where the file does not say.

    Raises:
        InputError: If the weights do not fit the model.
    """
    content = read_checkpoint(checkpoint)
    load_weights(unwrap_model(model), state_in(content, checkpoint), source=f"checkpoint {checkpoint!r}")
    return classes_in(content, checkpoint)
