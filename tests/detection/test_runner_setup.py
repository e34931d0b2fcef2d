"""What a Runner is spared: weights that are not there, and batch norms that wait for GPUs."""

import logging
import time

import pytest
import torch
from torch import nn

from visionpe.detection.running.runner import InputError, QuietRunner, build_runner, load_config

WEIGHTS = "work_dirs/imagenet/cswin_300e/rope_cswin_t/model.safetensors"


@pytest.mark.parametrize("place", ["model.backbone.init_cfg", "model.init_cfg"])
@pytest.mark.parametrize(("file", "hint"), [(WEIGHTS, "rope_cswin_t.py makes it"), ("absent.pth", "does not exist$")])
def test_missing_weights_to_start_from(place, file, hint):
    start = {"type": "Pretrained", "checkpoint": file}
    config = load_config("configs/digits/mask_rcnn_rope_vit.py", {place: start})
    with pytest.raises(InputError, match=hint):
        build_runner(config, stages=())


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs have synchronised norms")
def test_no_synchronised_norms_without_a_gpu():
    runner = QuietRunner.__new__(QuietRunner)
    runner._distributed, runner.logger = False, logging.getLogger()
    model = runner.wrap_model(None, nn.Sequential(nn.SyncBatchNorm(4)))
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    model(torch.randn(2, 4, 3, 3))


@pytest.mark.parametrize("config", ["rope_mixed_vit", "fcn_cpe_vit"])
def test_two_runs_of_one_second_write_apart(config, tmp_path, monkeypatch):
    # mmengine keeps loggers and visualizers by the name of the run, which ends with the second it started in.
    strftime = time.strftime
    monkeypatch.setattr(time, "strftime", lambda format, *at: strftime(format, time.gmtime(0)))
    for name in ("a", "b"):
        config_of_run = load_config(f"configs/digits/{config}.py", {"work_dir": str(tmp_path / name)})
        runner = build_runner(config_of_run, stages=())
        assert next(iter(runner.visualizer._vis_backends.values()))._save_dir.startswith(str(tmp_path / name))
