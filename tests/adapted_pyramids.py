"""What holds besides for adapted pyramids: what timm's methods do, copies, precisions, compilation, files."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, images, original
from torch import nn

import visionpe
from visionpe.policy.sizes import trained_size as size_of
from visionpe.utils.resizing import resize_images

Size = tuple[int, int]


def check_pyramid(name: str, keywords: Mapping[str, Any], *, policy: str, size: Size = (37, 51)) -> None:
    """All of it.

    Args:
        name, keywords: Of the model; small.
        policy: One of its own encoding, not the first.
        size: Pixels, of a map that windows do not divide.
    """
    model = original(name, keywords)
    adapted, trained = visionpe.adapt(model), trained_size(model)
    check_parity(model, adapted, trained, tolerance=5e-6)
    check_sizes(adapted, [trained, size, (320, 480), (20, 12), (8, 100)])
    check_swaps(model, [trained, size])
    check_files(name, keywords, trained)
    for spec in ("lepe", "cpb", "rope_mixed+ape", "abswin", "decomposed"):
        assert visionpe.adapt(model, pos_encoding=spec)(images(size)).isfinite().all()
    check_features(name, keywords, [trained, size])
    check_methods(adapted, trained)
    check_copies(adapted, [trained, size])
    check_training(adapted, trained)
    check_frozen(name, keywords)
    check_precision(model, adapted, trained)
    assert policy in visionpe.policies(adapted)
    assert visionpe.set_policy(adapted, policy)(images(size)).isfinite().all()
    with pytest.raises(TypeError, match="feature_cls='getter'"):
        visionpe.adapt(timm.create_model(name, **{**keywords, "features_only": True, "out_indices": (0,)}))


def trained_size(model: Any) -> Size:
    """Height and width in pixels that timm built a model for."""
    return tuple(model._traits["img_size"])


def check_features(name: str, keywords: Mapping[str, Any], sizes: Sequence[Size]) -> None:
    """The extractor of features gives those of the model, at every size, rounded up."""
    model = original(name, keywords)
    last = len(model.feature_info) - 1
    asked = {**keywords, "features_only": True, "feature_cls": "getter", "out_indices": (0, last)}
    features = timm.create_model(name, **asked).eval()
    features.model.load_state_dict(model.state_dict(), strict=False)
    before = [f.detach() for f in features(images(sizes[0]))] if _takes(model, sizes[0]) else None
    adapted, whole = visionpe.adapt(features), visionpe.adapt(model)
    for size in sizes:
        with torch.inference_mode():
            found = adapted(images(size))
            wanted = whole.forward_intermediates(images(size), indices=[0, last], intermediates_only=True)
        for feature, info, other in zip(found, adapted.feature_info.get_dicts(), wanted, strict=True):
            assert feature.shape[1:] == (info["num_chs"], *(-(-n // info["reduction"]) for n in size))
            torch.testing.assert_close(feature, other, atol=1e-5 * max(1.0, other.abs().max().item()), rtol=0)
        if size == sizes[0] and before is not None:
            for feature, other in zip(found, before, strict=True):
                torch.testing.assert_close(feature, other, atol=1e-5 * max(1.0, other.abs().max().item()), rtol=0)


def _takes(model: Any, size: Size) -> bool:
    try:
        model(images(size))
    except AssertionError:
        return False
    return True


def check_methods(adapted: Any, size: Size) -> None:
    """timm's own methods: another classifier, parameters by kind and by layer, fewer stages."""
    other = deepcopy(adapted)
    names = {n for n, _ in other.named_parameters()}
    assert other.no_weight_decay() <= names, other.no_weight_decay() - names
    groups = timm.models.group_parameters(other, other.group_matcher())
    assert names <= {n for members in groups.values() for n in members}
    other.reset_classifier(3)
    with torch.inference_mode():
        assert other(images(size)).shape == (2, 3)
        wanted = adapted.forward_intermediates(images(size), indices=[0], intermediates_only=True)
        other.prune_intermediate_layers([0])
        (feature,) = other.forward_intermediates(images(size), indices=[0], intermediates_only=True)
    torch.testing.assert_close(feature, wanted[0], atol=0, rtol=0)


def check_copies(adapted: Any, sizes: Iterable[Size]) -> None:
    """Copies say the same, after the model has run, and at the last size they may see images at the trained one."""
    first = next(iter(sizes))
    adapted(images(first))
    for other in (deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        for size in sizes:
            assert difference(adapted, other, size) == 0
    check_downscale(adapted, size)


def check_training(adapted: Any, size: Size) -> None:
    """Gradients are the same with checkpoints, and frozen positions of the original stay frozen."""
    grads = []
    for checkpointed in (False, True):
        other = deepcopy(adapted).eval()
        other.set_grad_checkpointing(checkpointed)
        other(images(size)).square().sum().backward()
        grads.append({n: p.grad for n, p in other.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], atol=1e-5, rtol=1e-4, msg=name)


def check_downscale(adapted: Any, size: Size) -> None:
    """The policy resizes images to the trained size, by name and by the table of a larger one, copies too."""
    trained = size_of(adapted)
    keys, x = list(adapted.state_dict()), images(size)
    expected = adapted(resize_images(x, trained))
    by_name = visionpe.set_policy(deepcopy(adapted), "downscale")
    by_table = visionpe.set_policy(deepcopy(adapted), {trained: "default", size: "downscale"})
    for other in (by_name, by_table, pickle.loads(pickle.dumps(by_name))):
        torch.testing.assert_close(other(x), expected, atol=1e-6, rtol=0)
        assert list(other.state_dict()) == keys
    after = visionpe.set_policy(by_name, "default")
    assert difference(adapted, after, size) == 0


def check_frozen(name: str, keywords: Mapping[str, Any], spec: str = "lepe") -> None:
    """A model that does not train gives one that does not, but for parameters that are new."""
    model = original(name, keywords).requires_grad_(False)
    assert not [n for n, p in visionpe.adapt(model).named_parameters() if p.requires_grad]
    swapped = visionpe.adapt(model, pos_encoding=spec)
    assert {n for n, p in swapped.named_parameters() if p.requires_grad} == {
        n for n, _ in swapped.named_parameters() if spec in n
    }


def check_precision(model: Any, adapted: Any, size: Size) -> None:
    """As near to single precision as the original is, in bfloat16 and under autocast."""
    x = images(size)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, own_mixed = model(x), adapted(x)
        half, own_half = (deepcopy(m).bfloat16()(x.bfloat16()).float() for m in (model, adapted))
    for theirs, own in ((mixed, own_mixed), (half, own_half)):
        assert own.isfinite().all()
        error = (theirs.float() - exact).abs().max()
        assert (own.float() - exact).abs().max() <= 2 * error + 1e-2 * exact.abs().max()


def check_compiled(adapted: Any, sizes: Iterable[Size]) -> None:
    """One graph, whatever backend makes of it."""
    compiled = torch.compile(adapted, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        for size in sizes:
            torch.testing.assert_close(compiled(images(size)), adapted(images(size)), atol=1e-4, rtol=1e-4)
    torch._dynamo.reset()


def check_exported(adapted: nn.Module, sizes: Sequence[Size]) -> None:
    """One exported graph serves every size."""
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(adapted, (images(sizes[0]),), dynamic_shapes={"x": dynamic}).module()
    for size in sizes:
        with torch.inference_mode():
            torch.testing.assert_close(exported(images(size)), adapted(images(size)), atol=1e-4, rtol=1e-4)


def stages_of(model: Any) -> Any:
    """The stages of one of timm's Swins."""
    return model.layers if hasattr(model, "layers") else model.stages


def check_windows_that_divide(name: str, keywords: Mapping[str, Any], tolerance: float = 2e-6) -> None:
    """A Swin is timm's of another size where windows of the trained size divide the maps: timm's padding takes part."""
    model = original(name, keywords)
    windows = [stage.blocks[0].window_size for stage in stages_of(model)]
    size = tuple(3 * n for n in trained_size(model))
    other = timm.create_model(name, **{"num_classes": 5, **keywords, "img_size": size, "window_size": windows}).eval()
    other.load_state_dict(model.state_dict())
    assert difference(other, visionpe.adapt(model), size) <= tolerance


def check_set_input_size(name: str, keywords: Mapping[str, Any]) -> tuple[Any, Any, Size]:
    """Windows of a Swin follow the nominal size as timm's do; gives the original, the adapted model and that size."""
    model = original(name, keywords)
    adapted, size = visionpe.adapt(model), tuple(2 * n for n in trained_size(model))
    for each in (model, adapted):
        each.set_input_size(size)
    followed = [stage.blocks[0].window_size for stage in stages_of(model)]
    assert [stage.window_size for stage in stages_of(adapted)] == followed
    assert difference(model, adapted, size) <= 2e-6
    return model, adapted, size
