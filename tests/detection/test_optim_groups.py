"""Parameter groups: every trained parameter in one, rates that shrink with depth, and no decay where it does harm."""

import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper
from timm.optim import param_groups_layer_decay
from torch import nn

from visionpe.detection import SimpleFeaturePyramid, TimmFeatures, TimmImageClassifier
from visionpe.detection.running.layer_rates import block_scales, layer_scales

TINY = {
    "rope_ape_vit_s": {"embed_dim": 16, "depth": 3, "num_heads": 2, "out_indices": (2,), "img_size": 32},
    "vitdet_b": {"embed_dim": 16, "depth": 3, "num_heads": 2, "out_indices": (2,), "img_size": 32},
    "swin_t": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "feature_norms": True},
    "irpe_cswin_t": {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (2, 4, 8, 8)},
    "swin_tiny_patch4_window7_224": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "convnext_atto": {},
    "resnet18": {},
}


class Detector(nn.Module):
    """A backbone, a neck, and a head with queries."""

    def __init__(self, name, **kwargs):
        super().__init__()
        self.backbone = TimmFeatures(name, **TINY[name], **kwargs)
        self.neck = SimpleFeaturePyramid(self.backbone.channels, 8)
        self.bbox_head = nn.ModuleDict({"query_embed": nn.Embedding(4, 8), "fc": nn.Linear(8, 3)})


def settings(model, **paramwise):
    """Learning rate and weight decay of every parameter, and how many groups there are."""
    config = {
        "constructor": "TimmOptimWrapperConstructor",
        "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.5},
        "paramwise_cfg": paramwise,
    }
    optimizer = build_optim_wrapper(model, config).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed = [(names[id(p)], (g["lr"], g["weight_decay"])) for g in optimizer.param_groups for p in g["params"]]
    assert len(listed) == len(dict(listed))
    return dict(listed), len(optimizer.param_groups)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("layer_decay", [None, 0.5])
@pytest.mark.parametrize("frozen", [-1, 0])
def test_every_trained_parameter_is_in_one_group(name, layer_decay, frozen):
    model = Detector(name, frozen_stages=frozen)
    found, _ = settings(model, **({} if layer_decay is None else {"layer_decay": layer_decay}))
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(found) < len(list(model.parameters())) or frozen < 0


# Of three blocks, the last that a table serves: the last is global, the others have windows.
LAST = {"rope_mixed.freqs": 2, "whole.decomposed": 2, "window.decomposed": 1}


@pytest.mark.parametrize("name", ["rope_ape_vit_s", "vitdet_b"])
def test_rates_of_vitdet(name):
    # detectron2: decay ** (depth + 1 - layer), the stem being layer 0 and all around the backbone depth + 1.
    found, _ = settings(Detector(name), layer_decay=0.5)
    for key, (rate, _) in found.items():
        last = next((block for part, block in LAST.items() if part in key), None)
        if not key.startswith("backbone."):
            expected = 1.0
        elif last is not None:
            expected = 0.5 ** (3 - last)
        elif ".blocks." in key:
            expected = 0.5 ** (3 - int(key.split(".")[3]))
        else:
            expected = 0.5**4
        assert rate == expected, key


def test_tables_learn_at_the_rates_of_their_blocks():
    """As published: each block with a table of its own, in a group with the block's rate."""
    model = Detector("vitdet_b")
    config = {
        "constructor": "TimmOptimWrapperConstructor",
        "optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.5},
        "paramwise_cfg": {"layer_decay": 0.5, "decay_mult": {"*_table": 1.0}},
    }
    optimizer = build_optim_wrapper(model, config).optimizer
    tables = {key: p for key, p in model.named_parameters() if "decomposed" in key}
    assert len(tables) == 4
    blocks = {"whole": [2], "window": [0, 1]}
    theirs = []
    for key, table in tables.items():
        torch.nn.init.normal_(table)
        for own, block in zip(table.detach().unbind(), blocks[key.split(".")[4]]):
            theirs.append((own.clone().requires_grad_(), 0.5 ** (3 - block)))
    reference = torch.optim.AdamW([{"params": [p], "lr": 0.1 * rate} for p, rate in theirs], weight_decay=0.5)
    for _ in range(3):
        grads = [torch.randn_like(table) for table in tables.values()]
        for table, grad in zip(tables.values(), grads):
            table.grad = grad
        for (p, _), grad in zip(theirs, (row for each in grads for row in each.unbind())):
            p.grad = grad.clone()
        for each in (optimizer, reference):
            each.step()
    rows = [own for table in tables.values() for own in table.detach().unbind()]
    assert len(rows) == len(theirs) == 6
    for own, (p, _) in zip(rows, theirs):
        torch.testing.assert_close(own, p.detach(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["irpe_cswin_t", "cswin_t", "swin_t", "irpe_vit_s", "lepe_vit_s"])
def test_positions_follow_their_blocks(name):
    options = {"depth": 3, "num_heads": 2} if "vit" in name else {"depths": (1, 2, 2, 1), "num_heads": (2, 4, 8, 8)}
    model = timm.create_model(name, embed_dim=16, **options)
    scales, shares = layer_scales(model, 0.5), block_scales(model, 0.5)
    checked = 0
    for key, parameter in model.named_parameters():
        if "pos_encoding" not in key:
            continue
        home, _, rest = key.partition("pos_encoding.")
        own = lambda block, home=home: scales[f"{home}blocks.{block}.norm1.weight"]  # noqa: E731
        if ".convs." in rest:  # a module for each block
            assert scales[key] == own(int(rest.split(".convs.")[1].split(".")[0]))
        else:  # a table for all
            expected = [own(block) for block in range(len(parameter))]
            assert (shares.get(key, torch.ones(1)) * scales[key]).flatten().tolist() in (expected, expected[:1]), key
        checked += 1
    assert checked


def test_rates_of_a_pyramid_follow_its_blocks():
    found, _ = settings(Detector("irpe_cswin_t"), layer_decay=0.5)
    rates = {key.removeprefix("backbone.model."): rate for key, (rate, _) in found.items()}
    heads = [key for key in rates if key.split(".")[0] in ("neck", "bbox_head")]
    assert {rates[key] for key in heads} == {1.0}
    order = ["patch_embed.proj.weight", "stages.0.blocks.0.mlp.fc1.weight", "stages.1.blocks.0.mlp.fc1.weight"]
    order += [f"stages.2.blocks.{i}.mlp.fc1.weight" for i in (0, 1)] + ["stages.3.blocks.0.mlp.fc1.weight"]
    chain = [rates[key] for key in order]
    assert chain == sorted(chain)
    assert len(set(chain)) == 6
    assert chain[-1] == 0.5
    assert rates["norms.3.weight"] == 0.5


def test_a_classifier_counts_its_head():
    options = {key: value for key, value in TINY["rope_ape_vit_s"].items() if key != "out_indices"}
    found, _ = settings(TimmImageClassifier("rope_ape_vit_s", **options), layer_decay=0.5)
    assert found["model.head.weight"][0] == 1
    assert found["model.blocks.2.mlp.fc1.weight"][0] == 0.5
    assert found["model.patch_embed.proj.weight"][0] == 0.5**4


def test_the_classifier_has_timms_own_rates():
    model = timm.create_model("swin_t", embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
    groups = param_groups_layer_decay(model, 0.5, model.no_weight_decay(), layer_decay=0.7)
    expected = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    scales = layer_scales(model, 0.7)
    assert {id(p): scales[name] for name, p in model.named_parameters()} == pytest.approx(expected)


@pytest.mark.parametrize("layer_decay", [None, 0.5])
@pytest.mark.parametrize("name", TINY)
def test_no_decay_for_norms_biases_and_positions(name, layer_decay):
    model = Detector(name)
    found, count = settings(model, **({} if layer_decay is None else {"layer_decay": layer_decay}))
    positions = ("pos_encoding", "relative_position_bias_table", "cls_token")
    for key, (_, decay) in found.items():
        exempt = model.get_parameter(key).ndim < 2 or any(part in key for part in positions)
        assert decay == (0 if exempt else 0.5), key
    assert count == 2 if layer_decay is None else count > 4


def test_parts_with_rates_and_decay_of_their_own():
    found, _ = settings(
        Detector("resnet18"),
        lr_mult={"backbone": 0.1, "backbone.model.layer3": 0.2},
        no_weight_decay=["*.query_embed.*"],
    )
    assert found["backbone.model.layer1.0.conv1.weight"] == (0.1, 0.5)
    assert {v[0] for key, v in found.items() if "layer3" in key} == {0.2}
    assert found["bbox_head.query_embed.weight"] == (1.0, 0)
    assert found["bbox_head.fc.weight"] == (1.0, 0.5)
    decayed, _ = settings(Detector("rope_ape_vit_s"), lr_mult={"backbone": 0.1}, layer_decay=0.5)
    assert decayed["backbone.model.blocks.2.mlp.fc1.weight"][0] == pytest.approx(0.05)


def test_of_patterns_the_last_that_fits_counts():
    model = Detector("swin_t")
    found, _ = settings(
        model,
        decay_mult={"*.bias": 1.0, "*norm*": 0.0, "*.norm2.weight": 0.5},
        no_weight_decay=["bbox_head.fc.bias"],
    )
    for key, (_, decay) in found.items():
        if "norm" in key:
            expected = 0.5 if key.endswith("norm2.weight") else 0
        elif key.endswith(".bias"):
            expected = 1 if key != "bbox_head.fc.bias" else 0
        else:
            expected = model.get_parameter(key).ndim > 1 and "table" not in key
        assert decay == 0.5 * expected, key


def test_mistakes_are_named():
    model = Detector("resnet18")
    with pytest.raises(ValueError, match=r"\['norm_decay'\]; allowed: layer_decay, no_weight_decay, lr_mult"):
        settings(model, norm_decay=0)
    with pytest.raises(ValueError, match="Detector has no part 'backbon'"):
        settings(model, lr_mult={"backbon": 0.1})
    with pytest.raises(ValueError, match=r"layer_decay=1.5 is out of range"):
        settings(model, layer_decay=1.5)
    for bad in (0.5, {"*.bias": -1}, {"*.bias": "no"}, {"*.bias": True}):
        with pytest.raises(ValueError, match=r"decay_mult=.*; allowed: patterns of names, each with a number from 0"):
            settings(model, decay_mult=bad)
    with pytest.raises(ValueError, match=r"layer_decay=0.5 needs a timm model; Linear holds none"):
        settings(nn.Linear(2, 2), layer_decay=0.5)


def test_a_step_moves_early_layers_less():
    model = Detector("rope_ape_vit_s")
    wrapper = build_optim_wrapper(
        model,
        {
            "constructor": "TimmOptimWrapperConstructor",
            "optimizer": {"type": "SGD", "lr": 0.1},
            "paramwise_cfg": {"layer_decay": 0.5},
        },
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    wrapper.optimizer.step()
    moves = {name: (before[name] - p).abs().max().item() for name, p in model.named_parameters()}
    assert moves["bbox_head.fc.weight"] == pytest.approx(0.1, abs=1e-5)
    assert moves["backbone.model.blocks.0.mlp.fc1.weight"] == pytest.approx(0.1 / 8, abs=1e-5)
