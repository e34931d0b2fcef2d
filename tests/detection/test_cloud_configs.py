"""Every config for clouds: its data run through its pipelines, its model trains, its schedule is the published one."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from cloud_trees import OBJECTS, ROOMS, write_pointcept_s3dis, write_pointcept_scannet, write_s3dis, write_scannet
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS

from visionpe.cli import test
from visionpe.detection.clouds.metric import fold_metrics
from visionpe.detection.running.runner import load_config

ROOT = Path(__file__).parents[2]
FILES = sorted(
    str(file.relative_to(ROOT / "configs"))
    for name in ("s3dis", "scannet", "rooms")
    for file in (ROOT / "configs" / name).glob("*.py")
)
POINTS = 10
TINY = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (2, 2), "window_size": (3, 3)}
TINY_PTV3 = {
    "embed_dims": (12, 24),
    "depths": (1, 1),
    "num_heads": (2, 2),
    "patch_size": 16,
    "strides": (2,),
    "decoder_dims": (12,),
    "decoder_depths": (1,),
    "decoder_heads": (2,),
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("clouds")
    return {
        "S3DISDataset": write_s3dis(root / "s3dis", points=POINTS),
        "ScanNetDataset": write_scannet(root / "scannet"),
        "PointceptS3DISDataset": write_pointcept_s3dis(root / "pointcept_s3dis"),
        "PointceptScanNetDataset": write_pointcept_scannet(root / "pointcept_scannet"),
    }


def shrunk(file, trees):
    config = load_config(str(ROOT / "configs" / file))
    config.model.update(TINY_PTV3 if "ptv3" in file else TINY)
    config.model.pop("init_cfg", None)
    for stage in ("train", "val", "test"):
        dataset = config[f"{stage}_dataloader"].dataset
        dataset = dataset.get("dataset", dataset)
        if "data_root" in dataset:
            dataset.data_root = str(trees[dataset.type])
        else:
            dataset.update(rooms=2 if stage == "train" else 1, room={"points": 200})
    return config


def batch(config, stage):
    dataset = DATASETS.build(config[f"{stage}_dataloader"].dataset)
    assert len(dataset.metainfo["classes"]) == config.model.num_classes
    return pseudo_collate([dataset[i] for i in range(2 if stage == "train" else 1)])


def test_configs_are_all_there():
    folds = {f"s3dis/swin3d_s_area_{area}.py" for area in (1, 2, 3, 4, 6)}
    kinds = {f"{data}/swin3d_{kind}.py" for data in ("s3dis", "scannet") for kind in ("s", "l", "s_rope_mixed")}
    kinds |= {f"{data}/swin3d_{size}_pretrained.py" for data in ("s3dis", "scannet") for size in "sl"}
    kinds |= {"scannet/ptv3_b.py", "scannet/ptv3_b_rope_axial.py", "s3dis/ptv3_b.py", "s3dis/ptv3_b_rpe.py"}
    kinds |= {f"rooms/ptv3_tiny_{name}.py" for name in ("xcpe", "rope_axial", "none")}
    assert set(FILES) == folds | kinds | {f"rooms/swin3d_tiny_{name}.py" for name in ("crse", "rope_mixed", "none")}


@pytest.mark.parametrize("file", FILES)
def test_a_step_of_training_and_one_of_evaluation(file, trees):
    config = shrunk(file, trees)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    logs = model.train_step(batch(config, "train"), wrapper)
    assert torch.isfinite(logs["loss"])
    changed = [name for name, p in model.named_parameters() if not torch.equal(before[name], p)]
    assert len(changed) > 0.7 * len(before)
    model.eval()
    for stage in ("val", "test"):
        with torch.no_grad():
            result = model.val_step(batch(config, stage))[0]
        assert result.pred_sem_seg.data.shape == result.gt_sem_seg.data.shape


@pytest.mark.parametrize(
    ("file", "size", "rate", "passes", "batch"),
    [
        ("s3dis/swin3d_s.py", "s", 6e-4, 6, 3),
        ("s3dis/swin3d_l.py", "l", 1e-3, 10, 3),
        ("scannet/swin3d_s.py", "s", 6e-3, 6, 3),
        ("scannet/swin3d_l.py", "l", 6e-3, 6, 3),
    ],
)
def test_published_recipes(file, size, rate, passes, batch):
    config = load_config(str(ROOT / "configs" / file))
    s3dis = file.startswith("s3dis")
    assert config.model.model_name == f"swin3d_{size}_unet"
    loader = config.train_dataloader
    assert (loader.batch_size, loader.dataset.times, config.train_cfg.max_epochs) == (batch, passes, 100)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", rate, 0.05)
    assert "clip_grad" not in config.optim_wrapper
    kinds = [step.type for step in config.param_scheduler]
    if (s3dis, size) == (True, "s"):
        assert (kinds, config.param_scheduler[0].milestones) == (["MultiStepLR"], [60, 80])
    else:
        assert kinds == ["LinearLR", "CosineAnnealingLR"]
        warmup = config.param_scheduler[0]
        assert (warmup.end, warmup.start_factor * rate) == (1500 if s3dis else 3000, pytest.approx(1e-6))
    steps = {step.type: step for step in loader.dataset.dataset.pipeline}
    assert list(steps) == [
        "RotateCloud", "ScaleCloud", *["JitterCloud"] * s3dis, "DropColor", *["SwapAxes"] * s3dis,
        "VoxelizeCloud", "CropCloud", "PackCloud",
    ]  # fmt: skip
    assert (steps["VoxelizeCloud"].size, steps["CropCloud"].max_voxels) == (
        (0.04, 80_000) if s3dis else (0.02, 120_000)
    )
    assert (config.model.signals, config.model.in_chans) == (("XYZ_RGB", 6) if s3dis else ("XYZ_RGB_NORM", 9))
    assert (config.model.first_down_stride, config.model.ignore_index) == ((2, 255) if s3dis else (3, -100))
    assert config.test_evaluator.ignore_index == config.model.ignore_index


@pytest.mark.parametrize(("file", "rate"), [("s3dis/swin3d_s.py", 6e-4), ("s3dis/ptv3_b_rpe.py", 6e-3)])
def test_blocks_learn_at_a_tenth_and_everything_decays(file, rate, trees):
    config = shrunk(file, trees)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in wrapper.optimizer.param_groups for p in g["params"]}
    blocks = 0
    for name, parameter in model.named_parameters():
        # Tables and convolutions belong to blocks, by their published names.
        slow = "blocks" in name or name.endswith("_table") or "pos_encoding" in name
        assert rates[id(parameter)] == (pytest.approx(rate / 10 if slow else rate), 0.05), name
        blocks += slow
    assert 0 < blocks < len(rates)
    decoder = "model.upsamples.0.block" if "swin3d" in file else "model.decoder.0.blocks"
    assert any(name.startswith(decoder) for name, _ in model.named_parameters())


def test_one_cycle_is_that_of_pytorch(trees):
    """Rates of both groups to the last digits; the first moment reaches its ends a step later."""
    config = shrunk("scannet/ptv3_b.py", trees)
    model, length = torch.nn.ModuleDict({"blocks": torch.nn.Linear(1, 1), "head": torch.nn.Linear(1, 1)}), 5
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group["params"]}
    own = [groups[id(model[name].weight)] for name in ("head", "blocks")]
    settings = [dict(each) for each in config.param_scheduler]
    schedulers = []
    for each in settings:
        assert each.pop("convert_to_iter_based")
        kind = PARAM_SCHEDULERS.get(each.pop("type"))
        schedulers.append(kind.build_iter_from_epoch(optimizer=wrapper, epoch_length=length, **each))
    other = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (6e-3, 6e-4)])
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        other, [6e-3, 6e-4], 100 * length, pct_start=0.05, div_factor=10, final_div_factor=1000
    )
    wrapper.step()
    for _ in range(100 * length - 1):
        assert [group["lr"] for group in own] == pytest.approx([group["lr"] for group in other.param_groups], rel=1e-9)
        assert own[0]["betas"][0] == pytest.approx(other.param_groups[0]["betas"][0], abs=5e-3)
        other.step()
        cycle.step()
        for scheduler in schedulers:
            scheduler.step()
    assert own[0]["lr"] == pytest.approx(6e-7)


def tool(name):
    # By path: a module called "test" would hide the standard library's.
    spec = importlib.util.spec_from_file_location(f"cloud_tool_{name}", ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_tools_train_resume_and_test(trees, tmp_path, monkeypatch, capfd):
    """As a user runs them: an epoch, one more after a break, and a test with votes that leaves its counts."""
    monkeypatch.chdir(ROOT)
    loaders = [f"{stage}_dataloader" for stage in ("train", "val", "test")]
    options = [f"{loader}.{key}" for loader in loaders for key in ("num_workers=0", "persistent_workers=False")]
    options += [f"{loader}.dataset.data_root={trees['S3DISDataset']}" for loader in loaders[1:]]
    options += [
        f"train_dataloader.dataset.dataset.data_root={trees['S3DISDataset']}",
        "train_dataloader.dataset.times=1",
    ]
    options += [f"model.{name}={value}".replace(" ", "") for name, value in TINY.items()]
    options += ["train_cfg.val_interval=1", f"test_evaluator.counts={tmp_path / 'counts.json'}"]
    options += ["test_dataloader.dataset.pipeline.0.times=2"]
    common = ["--work-dir", str(tmp_path), "--seed", "3"]
    config = "configs/s3dis/swin3d_s.py"
    tool("train")([config, *common, "--amp", "--cfg-options", *options, "train_cfg.max_epochs=1"])
    tool("train")([config, *common, "--amp", "--resume", "--cfg-options", *options, "train_cfg.max_epochs=2"])
    output = "".join(capfd.readouterr())
    assert output.count("Epoch(val) [1]") == output.count("Epoch(val) [2]") == 1
    out = str(tmp_path / "metrics.json")
    metrics = test.run([config, str(tmp_path / "epoch_2.pth"), *common, "--out", out, "--cfg-options", *options])
    counts = tmp_path / "counts.json"
    assert {name: value for name, value in metrics.items() if "time" not in name} == fold_metrics([counts])
    assert sum(json.loads(counts.read_text())["truth"]) == len(ROOMS) * len(OBJECTS) * POINTS
