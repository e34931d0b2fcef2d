"""Every config: its model trains, its data pipeline runs, its schedule is the published one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from PIL import Image
from safetensors.torch import save_file
from slim_configs import slim_classifier

import visionpe.detection  # noqa: F401
from visionpe.detection.running.runner import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
SETS = ("digits", "mnist", "imagenet/deit3_400e", "imagenet/deit3_finetune", "imagenet/adamw_300e")
FILES = [str(path.relative_to(CONFIGS)) for name in SETS for path in sorted((CONFIGS / name).glob("*_vit*.py"))]
# In digits/ there are detectors and segmentors as well.
FILES = [file for file in FILES if not Path(file).name.startswith(("mask_rcnn_", "fcn_", "upernet_"))]
PYRAMIDS = [f"imagenet/{family}_300e/{prefix}{family}_t.py" for family in ("swin", "cswin") for prefix in ("", "rope_")]
RECIPES = [f"imagenet/{name}" for name in ("deit3_400e/ape_vit_s", "deit3_400e/ape_vit_b", "adamw_300e/ape_vit_s")]
RECIPES += [f"imagenet/{name}" for name in ("deit3_finetune/ape_vit_b", "cswin_300e/cswin_t", "mvitv2_300e/mvitv2_t")]
FAMILIES = ("crossformer_300e", "rmt_300e", "cpvt_300e", "cvt_300e", "mit_300e", "twins_300e", "levit_1000e")
FAMILIES += ("mvitv2_300e", "hiera_finetune")
OTHERS = [
    str(path.relative_to(CONFIGS)) for name in FAMILIES for path in sorted((CONFIGS / "imagenet" / name).glob("*"))
]

# Of the ablation, encodings of 2025 and 2026 and the text classics; some are an encoding with options.
NEW = (
    *("rope_golden", "rope_spiral", "rope_mrope", "rope_vjepa", "liere", "pope", "pape", "xl", "shaw", "deberta"),
    *("carope", "tape", "seqpe", "seqpe_mul", "lape", "harope", "string", "every_block", "every_block_shared"),
)
OPTIONS = {
    "rope_ape": "rope_mixed+ape",
    "rope_axial_ape": "rope_axial+ape",
    "rpb": {"name": "rpb", "gain": 10.0},
    "seqpe_mul": {"name": "seqpe", "site": "qk_mul"},
    "every_block_shared": "every_block(ape, shared=True)",
}
NAMED = {"rope_mixed": "rope", "rope_ape": "rope", "rope_axial_ape": "rope_axial"}
NAMED |= {"seqpe_mul": "seqpe", "every_block_shared": "every_block"}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmpretrain")


def test_every_encoding_has_its_configs():
    seven = {"none", "ape", "sincos", "rope_axial", "rope_mixed", "cpe", "alibi"}
    nine = seven | {"rope_ape", "rope_axial_ape"}
    found = {name: {Path(f).stem for f in FILES if Path(f).parent.as_posix() == name} for name in SETS}
    ablation = {"fourier", "lepe", "irpe", "decomposed", "rpb", "cpb", "lookhere", "rope_norm", "fire", *NEW}
    assert found["mnist"] == {f"{name}_vit" for name in seven}
    assert found["digits"] == {f"{name}_vit" for name in seven | ablation}
    assert found["imagenet/deit3_finetune"] == {f"{name}_vit_b" for name in nine}
    for recipe in ("deit3_400e", "adamw_300e"):
        assert found[f"imagenet/{recipe}"] == {f"{name}_vit_{size}" for name in nine for size in "sb"}


@pytest.mark.parametrize("file", FILES)
def test_one_training_step(file):
    config = Config.fromfile(CONFIGS / file)
    encoding = Path(file).stem.split("_vit")[0]
    classes = config.model.num_classes
    if "imagenet" in file:
        config.model.update(img_size=32, embed_dim=24, depth=1, num_heads=2, patch_size=8)
        side, channels = 32, 3
        config.model.pop("pretrained", None)
    else:
        config.model.update(embed_dim=32, depth=1, num_heads=2)
        side, channels = 24, 1
    model = MODELS.build(config.model)
    assert config.model.get("pos_encoding") == OPTIONS.get(encoding)
    first = NAMED.get(encoding, encoding)
    size = Path(file).stem.split("_vit")[1] or "_ti"
    assert model.model_name == f"{first}_vit{size}"

    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    samples = [DataSample().set_gt_label(label % classes) for label in range(4)]
    images = torch.randint(0, 256, (4, channels, side, side), dtype=torch.uint8)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = model.train_step({"inputs": images, "data_samples": samples}, wrapper)
    assert torch.isfinite(losses["loss"])
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)]
    assert len(changed) > 0.7 * len(before)


@pytest.mark.parametrize("file", PYRAMIDS)
def test_one_training_step_of_a_pyramid(file):
    config = Config.fromfile(CONFIGS / file)
    assert config.model.model_name == Path(file).stem
    assert config.model.drop_path_rate == 0.2
    config.model.update(img_size=32, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 4))
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    losses = model.train_step({"inputs": images, "data_samples": samples}, wrapper)
    assert torch.isfinite(losses["loss"])
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)]
    assert len(changed) > 0.7 * len(before)


@pytest.mark.parametrize("file", OTHERS)
def test_training_steps_of_another_family(file):
    """Its file says the model; all learns, from the second step on where the classifier starts at zero, as Hiera's."""
    config = Config.fromfile(CONFIGS / file)
    assert config.model.model_name.split(".")[0].removeprefix("attention_bias_") == Path(file).stem
    assert config.model.get("pretrained", False) is ("finetune" in file)
    slim_classifier(config.model)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    side = config.model.img_size
    images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
    for _ in range(2):
        losses = model.train_step({"inputs": images, "data_samples": samples}, wrapper)
        assert torch.isfinite(losses["loss"])
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)]
    assert len(changed) > 0.7 * len(before)


@pytest.mark.parametrize(("family", "batch", "rate", "norm"), [("swin", 1024, 1e-3, 5.0), ("cswin", 2048, 2e-3, None)])
def test_recipes_of_pyramids(family, batch, rate, norm):
    config = Config.fromfile(CONFIGS / f"imagenet/{family}_300e/{family}_t.py")
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == batch
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", rate, 0.05)
    assert config.optim_wrapper.clip_grad == (norm and {"max_norm": norm})
    assert config.train_cfg.max_epochs == 300


@pytest.mark.parametrize("file", ["digits/ape_vit.py", "imagenet/deit3_400e/rope_ape_vit_s.py"])
def test_positions_biases_and_norms_do_not_decay(file):
    config = Config.fromfile(CONFIGS / file)
    config.model.update(depth=1)
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in wrapper.optimizer.param_groups for p in group["params"]}
    assert decay.keys() == set(names.values())
    full = config.optim_wrapper.optimizer.weight_decay
    for name, value in decay.items():
        decays = name.endswith("weight") and "norm" not in name
        assert value == (full if decays else 0), name
    assert len(wrapper.optimizer.param_groups) == 2


def test_layer_decay():
    config = Config.fromfile(CONFIGS / "digits/ape_vit.py")
    model = MODELS.build(config.model)
    config.optim_wrapper.paramwise_cfg = {"layer_decay": 0.5}
    rates = {}
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        rates.update({names[id(parameter)]: group["lr"] for parameter in group["params"]})
    assert rates["model.head.weight"] == pytest.approx(3e-3)
    assert rates["model.blocks.0.attn.qkv.weight"] < rates["model.blocks.3.attn.qkv.weight"] < 3e-3
    with pytest.raises(ValueError, match="allowed: layer_decay, no_weight_decay"):
        build_optim_wrapper(model, {**config.optim_wrapper, "paramwise_cfg": {"norm_decay": 0}})


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            (root / split / name).mkdir(parents=True)
            pixels = rng.integers(0, 256, (260, 300, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / name / "0.JPEG")
    return root


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_imagenet_pipelines(recipe, stage, imagenet):
    config = Config.fromfile(CONFIGS / f"{recipe}.py")
    data = config[f"{stage}_dataloader"].dataset
    data.update(data_root=str(imagenet), metainfo={"classes": ["tench", "goldfish"]})
    dataset = DATASETS.build(data)
    side = config.model.img_size
    batch = default_collate([dataset[index % 2] for index in range(8)])
    assert batch["inputs"].shape == (8, 3, side, side)
    assert batch["inputs"].dtype == torch.uint8


@pytest.mark.parametrize("encoding", ["ape", "rope_mixed", "alibi", "rope_ape"])
def test_finetuning_starts_from_smaller_images(encoding, tmp_path):
    tiny = {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8}
    before = Config.fromfile(CONFIGS / f"imagenet/deit3_400e/{encoding}_vit_b.py").model
    after = Config.fromfile(CONFIGS / f"imagenet/deit3_finetune/{encoding}_vit_b.py").model
    assert after.pretrained_cfg_overlay.file == f"work_dirs/imagenet/deit3_400e/{encoding}_vit_b/model.safetensors"
    trained = MODELS.build({**before, **tiny, "img_size": 24}).model.state_dict()
    after.pretrained_cfg_overlay.file = str(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError):
        MODELS.build({**after, **tiny, "img_size": 32})
    save_file(trained, tmp_path / "model.safetensors")
    loaded = MODELS.build({**after, **tiny, "img_size": 32}).model.state_dict()
    same = [name for name in trained if torch.equal(trained[name], loaded[name])]
    assert len(same) >= len(trained) - (encoding in ("ape", "rope_ape"))


def test_deit3_sizes():
    small, base = (Config.fromfile(CONFIGS / f"imagenet/deit3_400e/rope_mixed_vit_{size}.py") for size in "sb")
    assert (small.model.img_size, small.optim_wrapper.optimizer.lr, small.model.drop_path_rate) == (224, 4e-3, 0.0)
    assert (base.model.img_size, base.optim_wrapper.optimizer.lr, base.model.drop_path_rate) == (192, 3e-3, 0.1)
    for config in (small, base):
        assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 2048
        assert config.train_dataloader.sampler == {"type": "RepeatAugSampler", "shuffle": True}
        assert config.optim_wrapper.optimizer.type == "Lamb"


def test_digits_recipe():
    config = Config.fromfile(CONFIGS / "digits/rope_mixed_vit.py")
    splits = [config[f"{stage}_dataloader"].dataset.split for stage in ("train", "val", "test")]
    assert splits == ["train", "val", "test"]
    assert config.train_cfg.max_epochs == 40
    assert [step.end for step in config.param_scheduler] == [4, 40]
    assert config.custom_imports.imports == ["visionpe.detection"]


def test_work_dir_follows_the_config():
    assert load_config(str(CONFIGS / "digits/ape_vit.py")).work_dir == "work_dirs/digits/ape_vit"


def test_mmseg_configs_can_be_inherited(tmp_path):
    file = tmp_path / "config.py"
    file.write_text("_base_ = 'mmseg::_base_/default_runtime.py'\n")
    assert load_config(str(file)).default_scope == "mmseg"
