"""Every config for COCO and ADE20K fits together, trains, predicts and is measured, through its own data pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from slim_configs import shrink_pipeline, slim

from visionpe.data.digit_scenes.writing import SceneSettings, write_scenes
from visionpe.detection import check_neck
from visionpe.detection.running.runner import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = [
    str(path.relative_to(CONFIGS)) for name in ("coco", "ade20k") for path in sorted((CONFIGS / name).glob("*.py"))
]
# One of every head, every backbone and every neck; the others are long tests.
QUICK = (
    "coco/mask_rcnn_rope_vitdet_b_lsj100e.py",
    "coco/cascade_mask_rcnn_swin_t_3x.py",
    "coco/retinanet_cswin_t_1x.py",
    "coco/mask_rcnn_crossformer_s_1x.py",
    "coco/mask_rcnn_mvitv2_t_3x.py",
    "coco/mask_rcnn_hiera_b_lsj100e.py",
    "coco/dino_rope_vit_b_1x.py",
    "coco/dino_dinov3_vit_b_1x.py",
    "coco/mask_rcnn_dinov2_vit_b_lsj100e.py",
    "ade20k/upernet_rope_vit_b_160k.py",
    "ade20k/segformer_cswin_t_160k.py",
    "ade20k/mask2former_swin_t_160k.py",
    "ade20k/upernet_dinov3_vit_b_160k.py",
    "ade20k/linear_dinov2_vit_s_40k.py",
)
MARKED = [file if file in QUICK else pytest.param(file, marks=pytest.mark.long) for file in FILES]


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    # mmengine prints every initialised parameter.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModule, "_dump_init_info", lambda module: None)
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digit_scenes"
    write_scenes(folder, SceneSettings(train=4, val=2, size=(64, 80)))
    return folder


def data_of(config, stage, scenes):
    """The dataset of a stage with its own pipeline, over the digit scenes, and two examples."""
    data = config[f"{stage}_dataloader"].dataset
    while "dataset" in data:
        data = data.dataset
    coco = data.type == "CocoDataset"
    data.data_root = str(scenes / ("coco" if coco else "ade"))
    if coco:
        data.metainfo = {"classes": tuple("0123456789")}
    shrink_pipeline(data.pipeline, 10 if coco else 8)
    dataset = DATASETS.build(config[f"{stage}_dataloader"].dataset)
    return dataset, [dataset[i] for i in range(2)]


@pytest.mark.parametrize("file", MARKED)
def test_a_step_of_training_and_one_of_evaluation(file, scenes):
    np.random.seed(0)  # noqa: NPY002  what the pipelines draw from
    config = Config.fromfile(CONFIGS / file)
    init_default_scope(config.default_scope)
    slim(config)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    model.init_weights()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    _, examples = data_of(config, "train", scenes)
    learned = {name: p for name, p in model.backbone.named_parameters() if p.requires_grad}
    reached, before = set(), {name: p.detach().clone() for name, p in learned.items()}
    for name, p in learned.items():
        p.register_post_accumulate_grad_hook(lambda _, name=name: reached.add(name))
    losses = model.train_step(pseudo_collate(examples), wrapper)
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in losses.values())
    assert reached == learned.keys()  # or DDP would wait for the others
    changed = [name for name, p in learned.items() if not p.equal(before[name])]
    assert len(changed) >= 0.6 * len(before)
    assert bool(learned) is not file.startswith("ade20k/linear_")  # of a frozen backbone nothing is learned

    dataset, examples = data_of(config, "val", scenes)
    if "ann_file" in config.val_evaluator:
        config.val_evaluator.ann_file = str(scenes / "coco/annotations/instances_val2017.json")
    evaluator = Evaluator(config.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    model.eval()
    with torch.no_grad():
        for example in examples:
            batch = pseudo_collate([example])
            evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
    scores = evaluator.evaluate(len(examples))
    assert {"coco": "coco/bbox_mAP", "ade20k": "mIoU"}[file.split("/")[0]] in scores


def widths_behind_the_neck(model):
    """Channels that the parts which read the neck expect."""
    found = [model[name].get("in_channels") for name in ("rpn_head", "bbox_head", "decode_head") if name in model]
    if "encoder" in model:  # of a DETR
        found = [model.encoder.layer_cfg.self_attn_cfg.embed_dims]
    return {width for each in found for width in (each if isinstance(each, list) else [each])}


@pytest.mark.parametrize("file", FILES)
def test_parts_fit_and_weights_are_named(file):
    config = load_config(str(CONFIGS / file))
    assert config.work_dir == f"work_dirs/{file.removesuffix('.py')}"
    assert config.custom_imports.imports[0] == "visionpe.detection"
    backbone = config.model.backbone
    check_neck(config.model)
    if config.model.get("neck"):
        assert widths_behind_the_neck(config.model) == {config.model.neck.out_channels}
    # The name of a file says the backbone.
    name = backbone.model_name.split(".")[0].removeprefix("rope_")
    if "dino" in file:  # whose plain ViT has windows, as ViTDet's
        name = name.replace("vitdet", "vit")
    assert f"_{name}_" in file.replace("_rope_", "_")
    assert ("rope" in str(backbone)) == ("rope" in file)
    if backbone.get("pretrained"):
        assert backbone.get("init_cfg") is None
    else:  # no published weights: those of our own recipe
        weights = Path(backbone.init_cfg.checkpoint)
        recipe = CONFIGS / Path(*weights.parts[1:-1]).with_suffix(".py")
        assert recipe.is_file()
        assert Config.fromfile(recipe).model.model_name == backbone.model_name
    assert config.optim_wrapper.constructor == "TimmOptimWrapperConstructor"


def test_every_head_has_two_encodings():
    found = {Path(file).stem for file in FILES}
    for head in ("mask_rcnn", "cascade_mask_rcnn"):
        expected = {
            f"{head}_{name}_t_{epochs}"
            for name in ("swin", "rope_swin", "cswin", "rope_cswin")
            for epochs in ("1x", "3x")
        }
        assert found >= expected | {f"{head}_vitdet_b_lsj100e", f"{head}_rope_vitdet_b_lsj100e"}
    for head in ("dino", "retinanet"):
        assert found >= {f"{head}_{name}_1x" for name in ("rope_vit_b", "ape_vit_b", "cswin_t", "rope_cswin_t")}
    names = ("rope_vit_b", "ape_vit_b", "cswin_t", "rope_cswin_t", "swin_t", "rope_swin_t")
    assert found >= {f"upernet_{name}_160k" for name in names} | {"segformer_cswin_t_160k", "mask2former_swin_t_160k"}


@pytest.mark.parametrize(
    ("file", "rate", "decay", "epochs", "cuts"),
    [
        ("mask_rcnn_vitdet_b_lsj100e", 1e-4, 0.1, 25, [22, 24]),
        ("mask_rcnn_swin_t_1x", 1e-4, 0.05, 12, [8, 11]),
        ("cascade_mask_rcnn_cswin_t_3x", 1e-4, 0.05, 36, [27, 33]),
        ("dino_cswin_t_1x", 1e-4, 1e-4, 12, [11]),
    ],
)
def test_published_schedules(file, rate, decay, epochs, cuts):
    config = Config.fromfile(CONFIGS / f"coco/{file}.py")
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", rate, decay)
    assert "momentum" not in optimizer
    assert config.train_cfg.max_epochs == epochs
    assert config.param_scheduler[-1].milestones == cuts
    if "lsj" in file:
        assert config.optim_wrapper.paramwise_cfg.layer_decay == 0.7
        assert config.train_dataloader.dataset.times == 4
        assert config.auto_scale_lr.base_batch_size == 64
