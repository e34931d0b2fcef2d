"""timm's conventions over the registered names of every family but the plain ViT, which has its own."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from conftest import ELSEWHERE, randomize
from timm.optim import param_groups_layer_decay, param_groups_weight_decay

import visionpe
from visionpe.registry import names_of

# The smallest name of each family, tiny: published heads where they matter, windows that divide little.
FAMILIES = {
    "swin": ("t", dict(embed_dim=24, depths=(2, 1, 2, 1), window_size=4)),
    "cswin": ("t", dict(embed_dim=32, depths=(1, 1, 2, 1), stripe_widths=(1, 2, 3, 3))),
    "crossformer": ("t", dict(embed_dim=32, depths=(2, 1, 3, 1), group_size=3, crs_interval=(2, 2, 2, 1))),
    "rmt": (
        "t",
        dict(embed_dim=(16, 32, 32, 32), depths=(1, 1, 2, 1), num_heads=(2, 2, 2, 4), mlp_ratio=2.0, projection=24),
    ),
    "vitdet": ("b", dict(embed_dim=48, depth=3, num_heads=3, window_size=3, global_blocks=(1,))),
}
SMALL = dict(img_size=64, num_classes=5, drop_path_rate=0.0)
SIZES = {"swin": "tsbl", "cswin": "tsbl", "crossformer": "tsbl", "rmt": "tsbl", "vitdet": "blh"}
PREFIXES = [names_of(name)[0] for name in ELSEWHERE]
EVERY = [f"{prefix}_{family}_{size}" for family, (size, _) in FAMILIES.items() for prefix in PREFIXES]
PUBLISHED = [f"{family}_{size}" for family, (size, _) in FAMILIES.items()]
# The dearer checks of these; the other encodings act at the same sites.
CORE = PUBLISHED + [
    f"{prefix}_{family}_{size}"
    for family, (size, _) in FAMILIES.items()
    for prefix in ("none", "ape", "rope", "cpe", "lape", "irpe", "lookhere")
]
# Every encoding in windows of one family, and in the others those of the core; the rest in the long suite.
OFTEN = [name if name in CORE or "_swin_" in name else pytest.param(name, marks=pytest.mark.long) for name in EVERY]


def family_of(name: str) -> str:
    return name.split("_")[-2]


def build(name: str, **kwargs: object) -> torch.nn.Module:
    model = timm.create_model(name, **{**SMALL, **FAMILIES[family_of(name)][1], **kwargs})
    return randomize(model)


def image(*size: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *size)


@pytest.mark.parametrize("family", FAMILIES)
def test_names(family: str) -> None:
    for size in SIZES[family]:
        assert timm.is_model(f"{family}_{size}")
        assert all(timm.is_model(f"{prefix}_{family}_{size}") for prefix in PREFIXES)
    assert family_of(timm.list_models(f"*_{family}_*")[0]) == family


@pytest.mark.parametrize("name", OFTEN)
def test_any_size_forward_backward(name: str) -> None:
    """Not a multiple of the window or the patch, one token high, three to one, smaller and larger than trained."""
    model = build(name).train()
    for size in ((64, 64), (44, 92), (16, 80), (30, 90), (7, 33)):
        out = model(image(*size))
        assert out.shape == (1, 5)
        assert out.isfinite().all()
        out.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", OFTEN)
def test_nothing_size_dependent_is_stored(name: str) -> None:
    model = build(name)
    before = {k: v.shape for k, v in model.state_dict().items()}
    with torch.no_grad():
        wanted = model(image(44, 60))
        assert {k: v.shape for k, v in model.state_dict().items()} == before
        large = build(name, img_size=96)
        large.load_state_dict(model.state_dict())
        assert large(image(96, 96)).shape == wanted.shape
        x = image(44, 60)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(twin(x), model(x))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(list(model.buffers())) == 3 * len(norms)  # their statistics


@pytest.mark.parametrize("name", OFTEN)
def test_autocast(name: str) -> None:
    model, x = build(name), image(52, 72)
    with torch.no_grad():
        wide = model.forward_features(x)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = model.forward_features(x)
    assert (narrow.float() - wide).norm() / wide.norm() < 0.035


@pytest.mark.parametrize("name", CORE)
def test_features(name: str) -> None:
    model, x = build(name), image(70, 100)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        torch.testing.assert_close(final, model.forward_features(x))
    channels = [info["num_chs"] for info in model.feature_info]
    strides = [info["reduction"] for info in model.feature_info]
    assert [m.shape[1] for m in maps] == channels
    for m, stride in zip(maps, strides):
        assert all(abs(n - side / stride) < 1 for n, side in zip(m.shape[2:], (70, 100)))
    options = {**SMALL, **FAMILIES[family_of(name)][1]}
    if family_of(name) in ("cswin", "rmt"):  # whose features come with norms of their own
        options["feature_norms"] = False
    indices = (0, 2)
    backbone = timm.create_model(name, features_only=True, out_indices=indices, **options).eval()
    own = {k: v for k, v in model.state_dict().items() if k in backbone.model.state_dict()}
    backbone.model.load_state_dict(own, strict=False)
    assert backbone.feature_info.channels() == [channels[i] for i in indices]
    assert backbone.feature_info.reduction() == [strides[i] for i in indices]
    with torch.no_grad():
        for ours, i in zip(backbone(x), indices):
            torch.testing.assert_close(ours, maps[i])
    with pytest.raises(ValueError, match="output_fmt='NLCH'"):
        model.forward_intermediates(x, output_fmt="NLCH")


@pytest.mark.parametrize("name", CORE)
def test_classifier(name: str) -> None:
    model, x = build(name), image(64, 64, batch=2)
    with torch.no_grad():
        torch.testing.assert_close(model.forward_head(model.forward_features(x)), model(x))
        assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, model.head_hidden_size)
        assert model.get_classifier().out_features == 5
        model.reset_classifier(3)
        assert model(x).shape == (2, 3)
        model.reset_classifier(0)
        assert model(x).shape == (2, model.head_hidden_size)


@pytest.mark.parametrize("name", CORE)
def test_gradient_checkpointing(name: str) -> None:
    x, grads = image(44, 60), []
    model = build(name).train()
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*grads):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("name", CORE)
def test_optimizer_groups(name: str) -> None:
    model = build(name)
    spared = model.no_weight_decay()
    assert spared <= {*dict(model.named_parameters()), "cls_token", "reg_token"}
    decayed = param_groups_weight_decay(model, 0.05, no_weight_decay_list=spared)[1]["params"]
    names = {id(p): key for key, p in model.named_parameters()}
    assert not {k for k in map(names.get, map(id, decayed)) if k.endswith(("table", "freqs"))}
    groups = param_groups_layer_decay(model, 0.05, no_weight_decay_list=spared, layer_decay=0.5)
    assert sum(len(g["params"]) for g in groups) == len(names)
    scale = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    params = dict(model.named_parameters())
    first = next(k for k in params if k.startswith("patch_embed"))
    last = [k for k in params if "mlp.fc2.weight" in k][-1]
    assert scale[id(params[first])] < scale[id(params[last])]


@pytest.mark.parametrize("name", CORE)
def test_set_input_size(name: str) -> None:
    model, x = build(name), image(96, 64)
    with torch.no_grad():
        model.set_input_size(img_size=(96, 64))
        assert model(x).shape == (1, 5)
        assert model(image(40, 40)).shape == (1, 5)
    if name.startswith(("none", "ape", "rope", "cpe")):  # others measure from the windows, which stay
        fresh = build(name, img_size=(96, 64))
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (fresh, model)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_meta_device_and_dtype(name: str) -> None:
    with torch.device("meta"):
        assert timm.create_model(name)(torch.randn(1, 3, 64, 64)).shape[0] == 1
    model = build(name, dtype=torch.bfloat16).bfloat16()
    assert model(image(44, 60).bfloat16()).dtype == torch.bfloat16


def test_unknown_options_are_refused() -> None:
    for name in PUBLISHED:
        with pytest.raises(TypeError, match="windows_size"):
            timm.create_model(name, windows_size=3)
        with pytest.raises(ValueError, match="encoding 'rop' is unknown"):
            timm.create_model(name, pos_encoding="rop")


@pytest.mark.parametrize("name", PUBLISHED)
def test_policies_reach_all_stages(name: str) -> None:
    model = build(name, pos_encoding="rope_mixed+ape")
    visionpe.set_policy(model, "interpolate")
    visionpe.set_policy(model, "bilinear")
    parts = [m for m in model.modules() if isinstance(m, visionpe.PositionEncoding)]
    assert {m.policy for m in parts} == {"interpolate", "bilinear"}


@pytest.mark.parametrize("name", ["swin_t", "rope_swin_t", "cswin_b", "cswin_b.ms_384_in1k", "lape_cswin_t"])
def test_configuration_tells_the_map_that_is_pooled(name: str) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert cfg.pool_size == tuple(side // 32 for side in cfg.input_size[1:])
