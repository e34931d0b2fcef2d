"""Training and testing by config, as functions: what ``visionpe train`` and ``visionpe test`` call."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.runner import Runner

from visionpe.detection.predicting.drawing import SCOPES
from visionpe.detection.predicting.show_hook import ShowHook
from visionpe.detection.running import runner as setup
from visionpe.detection.running.building import clear_builds
from visionpe.detection.running.class_check import check_order, tested_classes
from visionpe.detection.running.config_check import check_numbers
from visionpe.detection.running.data_check import check_outside
from visionpe.detection.running.dumping import ENDINGS, dump_metric
from visionpe.detection.running.modes import set_auto_scale_lr
from visionpe.detection.running.tta import set_tta
from visionpe.utils.errors import InputError, plain_worker_errors
from visionpe.utils.files import check_output, sweep, write_atomic
from visionpe.utils.locks import locked


def _load(config: str | Path, cfg_options: dict[str, Any] | None, work_dir: str | Path | None) -> Config:
    loaded = setup.load_config(str(config), cfg_options)
    if work_dir is not None:
        loaded.work_dir = str(work_dir)
    return loaded


def train(
    config: str | Path,
    *,
    work_dir: str | Path | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    fsdp: bool = False,
    launcher: str = "none",
    seed: int | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Runner:
    """Train a model from a config of mmpretrain, mmdet or mmseg.

    Args:
        config: A file, or the name of a shipped config (``coco/mask_rcnn_cswin_t_1x.py``).
        work_dir: Where logs and weights go; ``work_dirs/<config>`` by default.
        resume: A checkpoint to go on from, or ``"auto"`` for the newest in ``work_dir``.
        amp: Mixed precision: bfloat16, on old GPUs float16; in detectors of the backbone alone.
        auto_scale_lr: Scale the learning rate with the batch of all processes, from the config's
            ``auto_scale_lr.base_batch_size``.
        fsdp: Shard the model over the GPUs instead of a copy on each.
        launcher: How several processes were started: ``none``, ``pytorch`` (torchrun), ``slurm``, ``mpi``.
        seed: Random seed; the config's by default.
        cfg_options: Overrides of the config by dotted key.

    Returns:
        The Runner, with the trained model.

    Raises:
        visionpe.utils.errors.InputError: If an argument, the data or the weights cannot be used.
    """
    loaded = _load(config, cfg_options, work_dir)
    check_numbers(loaded, ("train", "val"))
    if resume is not None:
        setup.set_resume(loaded, resume)
    if amp:
        setup.set_amp(loaded)
    if auto_scale_lr:
        set_auto_scale_lr(loaded)
    setup.set_seed(loaded, seed)
    setup.set_launcher(loaded, launcher)
    if fsdp:
        setup.set_fsdp(loaded)
    alone = locked(loaded.work_dir, "training", "--work-dir") if get_rank() == 0 else nullcontext()
    with alone:
        if get_rank() == 0:
            sweep(Path(loaded.work_dir))  # half a checkpoint of a run that was killed
        runner = setup.build_runner(loaded, stages=("train", "val"))
        with plain_worker_errors(), clear_builds(loaded):
            runner.train()
    return runner


def test(
    config: str | Path,
    checkpoint: str | Path,
    *,
    work_dir: str | Path | None = None,
    out: str | Path | None = None,
    show_dir: str | Path | None = None,
    score_thr: float = 0.3,
    tta: bool = False,
    launcher: str = "none",
    seed: int | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Evaluate weights on the test split of a config of mmpretrain, mmdet or mmseg.

    Args:
        config: A file, or the name of a shipped config.
        checkpoint: A ``.pth`` of :func:`train` or an exported ``model.safetensors``.
        work_dir: Where the log goes.
        out: Write the metrics into this JSON file; or, if it is called ``.pkl``, the predictions, as OpenMMLab's tools
            do: a list with a dictionary of tensors a picture.
        show_dir: Draw every picture into this folder, the ground truth beside the prediction.
        score_thr: Least score of a detection that is drawn, 0 to 1.
        tta: Test-time augmentation: the config's ``tta_model`` and ``tta_pipeline``, or each picture and its mirror
            image.
        launcher, seed, cfg_options: As in :func:`train`.

    Returns:
        The metrics.

    Raises:
        visionpe.utils.errors.InputError: If an argument or the data cannot be used, or the weights do not fit.
    """
    loaded = _load(config, cfg_options, work_dir)
    # The Runner would load what fits and go on with a warning.
    loaded.load_from, loaded.resume = None, False
    # All weights come from the checkpoint: those a fine-tuning started from need not be there.
    setup.drop_pretrained(loaded.model)
    file = setup.check_checkpoint(str(checkpoint))
    check_numbers(loaded, ("test",))
    scope = loaded.get("default_scope")
    if out is not None:
        check_output(out, "--out")
        check_outside(Path(out), "--out", loaded, ("test",), (file, loaded.filename))
    if show_dir is not None:
        if scope not in SCOPES:
            raise InputError(f"--show-dir is for models of {', '.join(SCOPES)}; the config has default_scope={scope!r}")
        if not 0 <= score_thr <= 1:
            raise InputError(f"--score-thr {score_thr}: must be 0 to 1")
        check_output(show_dir, "--show-dir", folder=True)
        check_outside(Path(show_dir), "--show-dir", loaded, ("test",))
    check_output(loaded.work_dir, "--work-dir", folder=True)
    if tta:
        set_tta(loaded)
    setup.set_seed(loaded, seed)
    setup.set_launcher(loaded, launcher)
    runner = setup.build_runner(loaded, stages=("test",))
    trained = setup.load_strictly(runner.model, file)
    check_order(tested_classes(loaded), trained, "test_dataloader", f"the training of {file}")
    dumped = out is not None and Path(out).suffix.lower() in ENDINGS
    if show_dir is not None:
        runner.register_hook(ShowHook(Path(show_dir), scope, score_thr))
    with plain_worker_errors(), clear_builds(loaded):
        if dumped:
            runner.test_loop.evaluator.metrics.append(dump_metric(scope, Path(str(out))))
        metrics = runner.test()
    if out is not None and not dumped and runner.rank == 0:
        # mmdet and mmseg give numpy's numbers.
        write_atomic(Path(out), json.dumps(metrics, indent=2, default=float) + "\n")
    return metrics
