"""What holds for every adapted model: parity with timm's, any size, any encoding, files of both layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from torch import Tensor, nn

import visionpe

TOLERANCE = 1e-5


def mostly_long(names: Iterable[str], *often: str) -> list[Any]:
    """Names for ``pytest.mark.parametrize``: some of them in every run, the others in ``make test-long``."""
    names = list(names)
    assert set(often) <= set(names)
    return [name if name in often else pytest.param(name, marks=pytest.mark.long) for name in names]


def original(name: str, keywords: Mapping[str, Any], seed: int = 0) -> Any:
    """timm's model with random weights."""
    model = randomize(timm.create_model(name, **{"num_classes": 5, **keywords}), seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith(".bn.weight"):  # drawn small as a bias is, where it is no "norm" by name
                weight.mul_(3).add_(1)
            if weight.ndim in (2, 4):  # some are as good as zero at first
                weight.mul_((weight[0].numel() ** -0.5 / weight.std()).clamp(min=1))
    return model


def images(size: tuple[int, int], batch: int = 2, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *size, generator=generator)


@torch.inference_mode()
def difference(a: nn.Module, b: nn.Module, size: tuple[int, int]) -> float:
    """Largest difference of outputs, over the largest output or one."""
    x = images(size)
    first, second = a(x), b(x)
    assert first.shape == second.shape
    assert first.isfinite().all()
    assert first.std(dim=0).max() > 1e-4, "all images look the same to this model: nothing is tested"
    return ((first - second).abs().max() / first.abs().max().clamp(min=1)).item()


def check_parity(model: Any, adapted: Any, size: tuple[int, int], tolerance: float = TOLERANCE) -> None:
    """Outputs, and features between the blocks, are those of the original."""
    assert difference(model, adapted, size) <= tolerance
    x = images(size)
    with torch.inference_mode():
        final, features = model.forward_intermediates(x)
        own_final, own_features = adapted.forward_intermediates(x)
    assert len(features) == len(own_features)
    for a, b in zip([final, *features], [own_final, *own_features]):
        torch.testing.assert_close(a, b, atol=tolerance * max(1.0, a.abs().max().item()), rtol=0)


def check_files(name: str, keywords: Mapping[str, Any], size: tuple[int, int]) -> None:
    """A state dict of the original loads into an adapted model, and one of its own."""
    model, other = original(name, keywords), original(name, keywords, seed=1)
    adapted, target = visionpe.adapt(model), visionpe.adapt(other)
    assert difference(model, target, size) > 1e-3, "weights do not matter: nothing is tested"
    target.load_state_dict(model.state_dict())
    assert difference(adapted, target, size) == 0
    again = visionpe.adapt(other)
    again.load_state_dict(adapted.state_dict())
    assert difference(adapted, again, size) == 0


def check_swaps(model: Any, sizes: list[tuple[int, int]], spec: str = "rope_axial") -> None:
    """Another encoding in place of its own, none, and one more; all other weights stay those of the original."""
    size = sizes[0]
    own = visionpe.adapt(model)
    swapped, none, more = (visionpe.adapt(model, pos_encoding=each) for each in (spec, "none", "+alibi"))
    assert difference(own, swapped, size) > 1e-4
    assert difference(own, none, size) > 1e-4
    assert difference(own, more, size) > 1e-4
    assert difference(swapped, none, size) > 1e-4
    for other in (swapped, none, more):
        for each in sizes:
            with torch.inference_mode():
                assert other(images(each)).isfinite().all()
    shared = {id(p) for p in model.parameters()}
    names = [n for n, p in none.named_parameters() if id(p) not in shared]
    assert not [n for n in names if "token" not in n], names


def check_sizes(adapted: Any, sizes: list[tuple[int, int]]) -> None:
    """It runs at every size, in training too, and every parameter has a gradient."""
    for size in sizes:
        with torch.inference_mode():
            assert adapted(images(size, batch=1)).isfinite().all()
    adapted.train()
    adapted(images(sizes[0])).square().sum().backward()
    lacking = [n for n, p in adapted.named_parameters() if p.requires_grad and p.grad is None]
    adapted.eval()
    adapted.zero_grad(set_to_none=True)
    assert not lacking, lacking


def check_plain(
    name: str, keywords: Mapping[str, Any], token: int, spec: str = "rope_axial", resized: Any = None
) -> None:
    """All of it, for a plain ViT of timm's.

    Args:
        name, keywords: Of the model; small.
        token: Pixels of a token.
        spec: What is put in the place of its positions.
        resized: From the original and a size to timm's model at that size; by default with ``dynamic_img_size``.
    """
    model = original(name, keywords)
    adapted, trained = visionpe.adapt(model), tuple(model.patch_embed.img_size)
    check_parity(model, adapted, trained)
    large, small = (320 // token * token, 480 // token * token), (token, 2 * token)
    for size in [] if resized is not None else ((5 * token, 7 * token), large, small):
        dynamic = timm.create_model(name, **{"num_classes": 5, "dynamic_img_size": True, **keywords}).eval()
        dynamic.load_state_dict(model.state_dict(), strict=False)
        assert difference(dynamic, adapted, size) <= TOLERANCE
    if resized is not None:
        size = tuple(n + k * token for k, n in enumerate(trained, start=1))
        assert difference(resized(model, size), adapted, size) <= 10 * TOLERANCE
    check_sizes(adapted, [trained, large, small])
    check_swaps(model, [trained, small], spec)
    check_files(name, keywords, trained)
