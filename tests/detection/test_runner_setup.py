"""What a Runner is spared: weights that are not there, and batch norms that wait for GPUs."""

import logging
import pickle
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from visionpe.detection import TimmFeatures, TimmImageClassifier, train
from visionpe.detection import test as evaluate
from visionpe.detection.running.building import clear_builds
from visionpe.detection.running.modes import set_auto_scale_lr
from visionpe.detection.running.runner import InputError, QuietRunner, build_runner, load_config, set_amp, set_seed

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
    [
        ("c.txt", "", r"allowed: \.py, "),
        ("c.py", "a = (", "cannot be read"),
        ("c.json", "{", "cannot be read"),
        ("c.py", "a = b", r"cannot be read \(NameError: name 'b' is not defined"),
        ("c.py", "custom_imports = dict(imports=['none_such'], allow_failed_imports=False)", "cannot be read"),
        ("c.py", "_base_ = 'visionpe::digits/none_such.py'", "cannot be read .*digits/none_such.py"),
    ],
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


SMALL = {"model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "train_cfg.max_epochs": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"train_dataloader.batch_size": 0},
            r"train_dataloader\.batch_size=0 must be positive and whole; allowed: 1 or",
        ),
        ({"val_dataloader.num_workers": -1}, r"val_dataloader\.num_workers=-1 must be 0 or more and whole"),
        ({"train_cfg.val_interval": 0}, r"train_cfg\.val_interval=0 must be positive"),
        ({"train_cfg.max_epochs": "3"}, r"train_cfg\.max_epochs='3' is no whole number"),
        ({"train_dataloader": 3}, r"train_dataloader=3 is no dictionary; allowed: dict\("),
        ({"model": "vit"}, r"model='vit' is no dictionary"),
        ({"optim_wrapper": 3}, r"optim_wrapper=3 is no dictionary"),
        ({"val_evaluator": 3}, r"val_evaluator=3 is no dictionary"),
        ({"train_dataloader": None}, r"train_dataloader is missing from the config"),
        ({"param_scheduler": 3}, r"rope_mixed_vit\.py: cannot be used: `param_scheduler` should be"),
        ({"train_cfg.max_epochs": {"x": 1}}, r"--cfg-options: max_epochs=.* cannot inherit"),
        ({"custom_hooks.9.x": 1}, r"--cfg-options: Index 9 exceeds"),
        ({"load_from": 3}, "load_from: checkpoint 3 is no text"),
        (
            {"model.no_such": 1},
            "type='TimmImageClassifier' cannot be built: VisionTransformer takes no keyword 'no_such'$",
        ),
        ({"model.depth": -1}, "type='TimmImageClassifier' cannot be built: depth=-1 must be positive"),
        ({"model.type": "NoSuch"}, "type='NoSuch' cannot be built: NoSuch is not in the mmpretrain::model registry$"),
        ({"model.pretrained": True}, "cannot be built: No pretrained weights exist for rope_vit_ti"),
        ({"model.type": "TimmImageClasifier"}, r"not in the .* registry; did you mean TimmImageClassifier\?$"),
        ({"model.model_nam": "x"}, r"takes no keyword 'model_nam'; did you mean model_name\?$"),
        ({"train_cfg.val_intervals": 1}, r"keyword argument 'val_intervals'; did you mean val_interval\?$"),
        (
            {"train_dataloader.dataset.no_such": 1},
            r"rope_mixed_vit\.py: type='DigitsDataset' cannot be built: .*no_such",
        ),
        ({"optim_wrapper.optimizer.no_such": 1}, "type='AdamW' cannot be built: .*no_such"),
    ],
)
def test_configs_that_cannot_be_built_are_one_line(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        train("digits/rope_mixed_vit.py", work_dir=tmp_path, cfg_options={**SMALL, **changes})


def test_errors_of_training_itself_keep_their_kind():
    with pytest.raises(ValueError, match="ours") as raised, clear_builds(Config()):
        raise ValueError("ours")
    assert not isinstance(raised.value, InputError)


@pytest.mark.parametrize("kind", [OptimWrapper, "OptimWrapper", "mmengine.OptimWrapper", AmpOptimWrapper, None])
def test_mixed_precision_of_a_wrapper_by_any_name(kind):
    config = Config({"optim_wrapper": {"optimizer": {}} if kind is None else {"type": kind}})
    set_amp(config)
    assert config.optim_wrapper.type in ("AutocastOptimWrapper", "AmpOptimWrapper")
    with pytest.raises(InputError, match=r"optim_wrapper\.type='Mine'"):
        set_amp(Config({"optim_wrapper": {"type": type("Mine", (OptimWrapper,), {})}}))
    detector = Config({"default_scope": "mmdet", "model": {"backbone": {"type": TimmFeatures}}})
    set_amp(detector)
    assert detector.model.backbone.autocast == "bfloat16"


def test_the_learning_rate_follows_the_batch(tmp_path):
    changes = {"train_dataloader.batch_size": 16, "train_dataloader.dataset.indices": 16, **SMALL}
    changes |= {f"{stage}_dataloader.dataset.indices": 8 for stage in ("val", "test")}
    rates = []
    for scaled in (False, True):
        runner = train(
            "digits/rope_mixed_vit.py", work_dir=tmp_path / str(scaled), auto_scale_lr=scaled, cfg_options=changes
        )
        rates.append(runner.optim_wrapper.param_groups[0]["initial_lr"])
    assert rates[1] == pytest.approx(rates[0] * 16 / 64)
    with pytest.raises(InputError, match=r"give --cfg-options auto_scale_lr\.base_batch_size=N"):
        set_auto_scale_lr(Config())
    with pytest.raises(InputError, match=r"auto_scale_lr\.base_batch_size=0 must be positive"):
        set_auto_scale_lr(Config({"auto_scale_lr": {"base_batch_size": 0}}))


def test_a_classifier_in_memory_is_drawn_dumped_and_flipped(tmp_path):
    config = load_config("digits/rope_mixed_vit.py", SMALL)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "w.pth")
    options = {**SMALL, "test_dataloader.dataset.indices": 3}
    places = {"out": tmp_path / "p.pkl", "show_dir": tmp_path / "drawn", "work_dir": tmp_path / "w"}
    scores = []
    places["work_dir"].mkdir()
    kept = places["work_dir"] / "rope_mixed_vit.py"
    kept.write_text("# that of training")
    for tta in (False, True):
        evaluate("digits/rope_mixed_vit.py", tmp_path / "w.pth", tta=tta, cfg_options=options, **places)
        found = pickle.loads((tmp_path / "p.pkl").read_bytes())
        assert [each["gt_label"].shape for each in found] == [(1,)] * 3
        assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == [f"{i:06d}.png" for i in range(3)]
        scores.append(torch.stack([each["pred_score"] for each in found]))
    assert not torch.allclose(*scores)
    assert kept.read_text() == "# that of training"
    dumped = sorted(places["work_dir"].glob("*/vis_data/config.py"))
    assert {Config.fromfile(file).runner_type for file in dumped} == {"TestingRunner"}
    config = Config.fromfile(dumped[-1])  # a test's own: trained from, it is written as ever
    config.merge_from_dict(
        {
            "work_dir": str(tmp_path / "again"),
            "model": {"_delete_": True, **load_config("digits/rope_mixed_vit.py", SMALL).model},
        }
    )
    build_runner(config, stages=("train",))
    assert [file.name for file in (tmp_path / "again").glob("*.py")] == ["config.py"]
    clouds = str(Path(__file__).parents[2] / "configs/rooms/swin3d_tiny_none.py")
    for options, flag in (({"tta": True}, "--tta"), ({"show_dir": "x"}, "--show-dir")):
        with pytest.raises(InputError, match=f"{flag} is for models of mmdet, mmseg, mmpretrain"):
            evaluate(clouds, tmp_path / "w.pth", **options)
