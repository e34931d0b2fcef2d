"""What a Runner is spared: weights that are not there, and batch norms that wait for GPUs."""

import logging
import time

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit
from torch import nn

from visionpe.detection import TimmFeatures, TimmImageClassifier
from visionpe.detection.running.runner import InputError, QuietRunner, build_runner, load_config, set_seed

WEIGHTS = "work_dirs/imagenet/cswin_300e/rope_cswin_t/model.safetensors"


@pytest.mark.parametrize("place", ["model.backbone.init_cfg", "model.init_cfg"])
@pytest.mark.parametrize(("file", "hint"), [(WEIGHTS, "rope_cswin_t.py makes it"), ("absent.pth", "does not exist$")])
def test_missing_weights_to_start_from(place, file, hint):
    start = {"type": "Pretrained", "checkpoint": file}
    config = load_config("configs/digits/mask_rcnn_rope_vit.py", {place: start})
    with pytest.raises(InputError, match=hint):
        build_runner(config, stages=())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"load_from": "absent.pth"}, "load_from: checkpoint 'absent.pth' does not exist"),
        ({"load_from": "."}, r"load_from: checkpoint '\.' is a folder"),
        ({"model.checkpoint_path": "absent.pth"}, "model.checkpoint_path: checkpoint 'absent.pth' does not exist"),
        (
            {"model.pretrained": True, "model.pretrained_cfg_overlay": {"file": "absent.pth"}},
            "model.pretrained_cfg_overlay.file: checkpoint 'absent.pth' does not exist",
        ),
        ({"model.init_cfg": {"type": "mmengine.Pretrained", "checkpoint": "absent.pth"}}, "model.init_cfg: .*absent"),
        ({"model.init_cfg": {"type": PretrainedInit, "checkpoint": "absent.pth"}}, "model.init_cfg: .*absent"),
        ({"model.init_cfg": {"type": "Pretrained"}}, "model.init_cfg: .*needs checkpoint"),
    ],
)
def test_weights_to_start_from_are_looked_for_first(changes, words, tmp_path):
    config = load_config("configs/digits/rope_mixed_vit.py", {"work_dir": str(tmp_path / "run")})
    config.merge_from_dict(changes)
    with pytest.raises(InputError, match=words):
        build_runner(config, stages=("train",))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("c.txt", "", r"allowed: \.py, "), ("c.py", "a = (", "cannot be read"), ("c.json", "{", "cannot be read")],
)
def test_what_is_no_config(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}.*{words}"):
        load_config(str(tmp_path / name))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_numpy_does_not_take(seed):
    with pytest.raises(InputError, match=rf"--seed {seed}: must be 0 to 4294967295"):
        set_seed(Config(), seed)


def test_a_head_for_other_classes_is_refused(tmp_path):
    changes = {"work_dir": str(tmp_path / "run"), "model.num_classes": 7}
    config = load_config("configs/digits/rope_mixed_vit.py", changes)
    with pytest.raises(InputError, match=r"model.num_classes=7, but test_dataloader.dataset has 10 classes"):
        build_runner(config, stages=("test",))


@pytest.mark.parametrize("kind", ["Pretrained", "mmengine.Pretrained", "mmdet.PretrainedInit", PretrainedInit])
def test_every_name_of_pretrained_weights_must_fit(kind, tmp_path):
    torch.save({"state_dict": {"other.weight": torch.zeros(3)}}, tmp_path / "w.pth")
    start = {"type": kind, "checkpoint": str(tmp_path / "w.pth")}
    small = {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": 32}
    for model in (
        TimmFeatures("rope_vit_ti", out_indices=(0,), init_cfg=start, **small),
        TimmImageClassifier("rope_vit_ti", init_cfg=start, **small),
    ):
        with pytest.raises(InputError, match=r"w.pth'.* does not fit"):
            model.init_weights()
    with pytest.raises(InputError, match=r"checkpoint_path=.*w.pth.* does not fit"):
        TimmImageClassifier("rope_vit_ti", checkpoint_path=str(tmp_path / "w.pth"), **small)


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
