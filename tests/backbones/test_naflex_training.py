"""timm's NaFlex pipeline feeds our ViTs and timm's, adapted."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data.naflex_loader import create_naflex_loader
from torch import nn

import visionpe

CLASSES = 3
SIZES = [(40, 24), (24, 56), (32, 32), (48, 20)]


class Stripes(torch.utils.data.Dataset):
    """Pictures of one colour a class, of several shapes."""

    transform: Any = None

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Any, int]:
        label = index % CLASSES
        picture = Image.new("RGB", SIZES[index % len(SIZES)], tuple(255 * (channel == label) for channel in range(3)))
        return (picture if self.transform is None else self.transform(picture)), label


def loader(training: bool) -> Any:
    return create_naflex_loader(
        Stripes(),
        patch_size=8,
        train_seq_lens=(16, 24),
        max_seq_len=24,
        batch_size=8,
        is_training=training,
        no_aug=not training,
        use_prefetcher=False,
        num_workers=0,
        pin_memory=False,
        persistent_workers=False,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("batching", ["auto", "pad", "pack"])
def test_a_few_steps(batching: str) -> None:
    model = timm.create_model(
        "none_vit_ti", pos_encoding="rope_mixed", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2,
        num_classes=CLASSES, drop_path_rate=0.1,
    ).train()  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, shapes = [], set()
    for _ in range(4):
        for given, target in loader(training=True):
            shapes.add(tuple(given["patches"].shape))
            loss = nn.functional.cross_entropy(model(given, batching=batching), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert len(shapes) > 1
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    with torch.no_grad():
        right = sum(int((model(given).argmax(1) == target).sum()) for given, target in loader(training=False))
    assert right > 40


@torch.no_grad()
def test_an_adapted_vit_takes_the_batches() -> None:
    model = visionpe.adapt(
        timm.create_model("vit_tiny_patch16_224", patch_size=8, img_size=32, depth=2, num_classes=CLASSES)
    ).eval()
    given, target = next(iter(loader(training=False)))
    logits = model(given["patches"], patch_coord=given["patch_coord"], patch_valid=given["patch_valid"])
    assert logits.shape == (len(target), CLASSES)
    for index in range(len(target)):
        own = {key: value[index : index + 1] for key, value in given.items() if isinstance(value, torch.Tensor)}
        torch.testing.assert_close(model(own)[0], logits[index], atol=1e-5, rtol=1e-4)
