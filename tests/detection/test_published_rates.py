"""The learning rate over the epochs of ImageNet recipes beside timm's scheduler, with which their sources train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from timm.scheduler import CosineLRScheduler

CONFIGS = Path(__file__).parents[2] / "configs/imagenet"
STEPS = 20  # iterations in an epoch
# Rate, lowest rate, warm-up from, warm-up epochs, epochs, and whether the cosine begins after the warm-up.
PUBLISHED = {
    "adamw_300e/ape_vit_s": (1e-3, 1e-5, 1e-6, 5, 300, False),
    "deit3_400e/ape_vit_s": (4e-3, 1e-5, 1e-6, 5, 400, False),
    "deit3_400e/ape_vit_b": (3e-3, 1e-5, 1e-6, 5, 400, False),
    "deit3_finetune/ape_vit_b": (1e-5, 1e-5, 1e-6, 5, 20, False),
    "swin_300e/swin_t": (1e-3, 1e-5, 1e-6, 20, 300, True),
    "crossformer_300e/crossformer_t": (1e-3, 1e-5, 1e-6, 20, 300, True),
    "cswin_300e/cswin_t": (2e-3, 1e-5, 1e-6, 20, 300, False),
    "rmt_300e/rmt_t": (2e-3, 1e-5, 1e-6, 5, 300, False),
    "twins_300e/twins_svt_s": (1e-3, 1e-5, 1e-6, 5, 300, False),
    "levit_1000e/levit_256": (2e-3, 1e-5, 1e-6, 5, 1000, False),
    "mvitv2_300e/mvitv2_t": (2e-3, 8e-6, 8e-8, 70, 300, True),
    "hiera_finetune/hiera_t": (2e-3, 1e-6, 2e-9, 5, 300, True),
    "hiera_finetune/hiera_b": (2e-3, 1e-6, 2e-9, 5, 100, True),
}


def our_rates(file: str, epochs: int) -> list[float]:
    """At the first iteration of each epoch."""
    init_default_scope("mmpretrain")
    config = Config.fromfile(CONFIGS / f"{file}.py")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr)
    schedulers = []
    for settings in map(dict, config.param_scheduler):
        assert settings.pop("convert_to_iter_based")
        cls = PARAM_SCHEDULERS.get(settings.pop("type"))
        schedulers.append(cls.build_iter_from_epoch(optimizer=optimizer, epoch_length=STEPS, **settings))
    rates = []
    for iteration in range(epochs * STEPS):
        if iteration % STEPS == 0:
            rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize("file", PUBLISHED)
def test_rates_over_the_epochs(file: str) -> None:
    rate, lowest, start, warmup, epochs, prefix = PUBLISHED[file]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    span = epochs - warmup if prefix else epochs
    theirs = CosineLRScheduler(
        optimizer, span, lr_min=lowest, warmup_lr_init=start, warmup_t=warmup, warmup_prefix=prefix
    )
    ours = our_rates(file, epochs)
    for epoch in range(epochs):
        theirs.step(epoch)
        # mmengine's warm-up is over an iteration earlier, and ours is under the cosine already.
        slack = 0.03 if epoch < warmup else 1e-3
        assert ours[epoch] == pytest.approx(optimizer.param_groups[0]["lr"], abs=slack * rate), epoch
    assert ours[0] == pytest.approx(start)
