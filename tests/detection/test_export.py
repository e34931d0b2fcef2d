"""ExportHook: what it writes is the trained model."""

import functools
import json
import os
from pathlib import Path

import pytest
import timm
import torch
from mmengine.model import MMDistributedDataParallel
from safetensors.torch import load_file

from visionpe.detection import TimmImageClassifier
from visionpe.detection.running import export_hook as export
from visionpe.detection.running.runner import build_runner, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = {
    "model.embed_dim": 16,
    "model.depth": 1,
    "model.num_heads": 2,
    "train_cfg.max_epochs": 1,
    "train_dataloader.batch_size": 8,
    "train_dataloader.dataset.indices": 16,
    "val_dataloader.dataset.indices": 16,
}


def train(name, folder, **options):
    config = load_config(str(CONFIGS / name), {**TINY, **options})
    config.work_dir = str(folder)
    runner = build_runner(config, stages=("train",))
    runner.train()
    return runner


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    options = {"randomness.seed": 3, "model.pos_encoding": "rope_mixed+ape"}
    return train("digits/rope_mixed_vit.py", tmp_path_factory.mktemp("run"), **options)


def test_round_trip_is_exact(runner):
    folder = Path(runner.work_dir)
    facts = json.loads((folder / "model.json").read_text())
    torch.manual_seed(99)
    model = timm.create_model(facts["model"], checkpoint_path=str(folder / "model.safetensors"), **facts["kwargs"])
    trained = export.unwrap(runner.model).model
    images = torch.randn(2, 1, 24, 24)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), trained.eval()(images))
    assert model.state_dict().keys() == load_file(folder / "model.safetensors").keys()


def test_description(runner):
    facts = json.loads((Path(runner.work_dir) / "model.json").read_text())
    assert facts["model"] == "rope_vit_ti"
    assert facts["kwargs"]["pos_encoding"] == "rope_mixed+ape"
    assert (facts["img_size"], facts["data"], facts["seed"], facts["epochs"]) == (24, "digits", 3, 1)
    assert facts["mean"] == pytest.approx([79.3])
    assert facts["std"] == pytest.approx([91.0])
    assert Path(facts["config"]).name == "rope_mixed_vit.py"
    assert {"visionpe", "torch", "timm", "mmengine", "mmpretrain"} <= facts["versions"].keys()
    assert not {"loss", "data_preprocessor", "train_cfg", "init_cfg"} & facts["kwargs"].keys()


def test_no_temporary_file_stays(runner):
    assert [path.name for path in Path(runner.work_dir).glob(".model*")] == []


def test_a_failure_leaves_the_old_files(runner, monkeypatch):
    folder = Path(runner.work_dir)
    before = {name: (folder / name).read_bytes() for name in ("model.safetensors", "model.json")}

    def fail(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(export, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        export.ExportHook().after_train(runner)
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert [path.name for path in folder.glob(".model*")] == []


def test_other_data_is_named(tmp_path):
    train("mnist/none_vit.py", tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["data"] == "mnist"
    assert facts["mean"] == pytest.approx([45.4])


def test_sources_of_weights_are_not_repeated(runner, tmp_path):
    weights = Path(runner.work_dir) / "model.safetensors"
    kwargs = export.model_kwargs(export.unwrap(runner.model))
    model = TimmImageClassifier("rope_vit_ti", checkpoint_path=str(weights), **kwargs)
    assert export.model_kwargs(model) == kwargs


def test_keywords_json_cannot_hold_are_named():
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    model = TimmImageClassifier("test_vit", norm_layer=norm)
    with pytest.raises(TypeError, match="norm_layer"):
        export.model_kwargs(model)


def test_unwrap():
    model = TimmImageClassifier("test_vit")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert export.unwrap(MMDistributedDataParallel(module=model, device_ids=None)) is model
    finally:
        torch.distributed.destroy_process_group()
    with pytest.raises(TypeError, match="Linear"):
        export.unwrap(torch.nn.Linear(1, 1))
