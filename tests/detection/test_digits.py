"""DigitsDataset and the pipeline of the digit configs."""

import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from visionpe.data.digits import load_digits
from visionpe.detection import DigitsDataset

CONFIG = Path(__file__).parents[2] / "configs/digits/rope_mixed_vit.py"


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmpretrain")


@pytest.fixture(scope="module")
def config():
    return Config.fromfile(CONFIG)


@pytest.mark.parametrize("source", ["digits", "mnist"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_holds_the_images_and_labels(source, split):
    dataset = DigitsDataset(split=split, source=source, pipeline=[{"type": "PackInputs"}])
    images, labels = load_digits(split, source)
    assert len(dataset) == len(images)
    assert dataset.metainfo["classes"] == tuple("0123456789")
    for index in (0, len(images) - 1):
        item = dataset[index]
        assert torch.equal(item["inputs"], images[index])
        assert item["data_samples"].gt_label.item() == labels[index]
        assert item["data_samples"].sample_idx == index


def test_indices_choose_a_part():
    dataset = DigitsDataset(indices=[5, 7], pipeline=[{"type": "PackInputs"}])
    images, labels = load_digits("train")
    assert len(dataset) == 2
    assert torch.equal(dataset[1]["inputs"], images[7])
    assert dataset.get_gt_labels().tolist() == labels[[5, 7]].tolist()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="allowed: train, val, test"):
        DigitsDataset(split="training")
    with pytest.raises(ValueError, match="allowed: digits, mnist"):
        DigitsDataset(source="cifar")


def test_held_out_images_are_not_augmented(config):
    for stage, split in (("val", "val"), ("test", "test")):
        dataset = DATASETS.build(config[f"{stage}_dataloader"].dataset)
        assert dataset.split == split
        assert torch.equal(dataset[3]["inputs"], load_digits(split)[0][3])


def test_augmentation_scales_both_ways(config):
    dataset = DATASETS.build(config.train_dataloader.dataset)
    torch.manual_seed(0)
    plain = load_digits("train")[0][0].float().sum()
    mass = torch.stack([dataset[0]["inputs"].float().sum() / plain for _ in range(200)])
    # Ink grows with the square of the scale: 0.25 to 4, less what leaves the image.
    assert 0.2 < mass.min() < 0.5
    assert mass.max() > 1.5
    assert dataset[0]["inputs"].shape == (1, 24, 24)
    assert dataset[0]["inputs"].dtype == torch.uint8


def test_pipeline_is_cheap(config):
    dataset = DATASETS.build(config.train_dataloader.dataset)
    costs = []
    for _ in range(3):
        start = time.process_time()
        for index in range(100):
            dataset[index]
        costs.append((time.process_time() - start) / 100)
    # A training step costs the model about 1 ms an image.
    assert min(costs) < 1e-3
