"""Which parameters decay, and at which rates they learn, by the rule of each recipe's source, on built models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from slim_configs import slim, slim_classifier
from test_recipes import CONFIGS, RECIPES, files
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from visionpe import PositionEncoding

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
# One config of each kind of recipe and backbone.
FILES = [
    *(f"imagenet/{name}.py" for name in ("adamw_300e/ape_vit_s", "deit3_400e/rope_ape_vit_b")),
    *(
        f"imagenet/{name}.py"
        for name in ("deit3_finetune/rope_mixed_vit_b", "swin_300e/swin_t", "swin_300e/rope_swin_t")
    ),
    "imagenet/cswin_300e/cswin_t.py",
    "imagenet/crossformer_300e/crossformer_t.py",
    "coco/mask_rcnn_crossformer_s_1x.py",
    "ade20k/upernet_crossformer_s_160k.py",
    *(
        f"coco/{name}.py"
        for name in ("cascade_mask_rcnn_swin_t_1x", "mask_rcnn_rope_swin_t_3x", "mask_rcnn_cswin_t_1x")
    ),
    *(f"coco/{name}.py" for name in ("mask_rcnn_vitdet_b_lsj100e", "cascade_mask_rcnn_rope_vitdet_b_lsj100e")),
    *(f"coco/{name}.py" for name in ("dino_cswin_t_1x", "dino_ape_vit_b_1x", "dino_rope_vit_b_1x")),
    *(f"coco/{name}.py" for name in ("retinanet_cswin_t_1x", "retinanet_ape_vit_b_1x", "retinanet_rope_vit_b_1x")),
    *(f"ade20k/{name}_160k.py" for name in ("upernet_swin_t", "upernet_cswin_t", "upernet_ape_vit_b")),
    *(f"ade20k/{name}_160k.py" for name in ("segformer_cswin_t", "mask2former_swin_t")),
    *("imagenet/rmt_300e/rmt_t.py", "coco/mask_rcnn_rmt_t_1x.py", "ade20k/upernet_rmt_s_160k.py"),
    *(f"imagenet/{name}.py" for name in ("cpvt_300e/cpvt_s", "mit_300e/mit_b0", "cvt_300e/cvt_13")),
    *(f"imagenet/{name}.py" for name in ("twins_300e/twins_svt_s", "twins_300e/twins_pcpvt_s")),
    *(f"imagenet/{name}.py" for name in ("levit_1000e/levit_128s", "mvitv2_300e/mvitv2_t", "hiera_finetune/hiera_b")),
    *(f"coco/mask_rcnn_{name}.py" for name in ("mvitv2_t_3x", "hiera_b_lsj100e")),
    *(f"ade20k/upernet_{name}_160k.py" for name in ("mvitv2_t", "hiera_b")),
]


class Owner:
    """A parameter, and the modules that it stands in, as a published rule sees it."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.name, self.value = name, model.get_parameter(name)
        path = name.split(".")[:-1]
        self.modules = [model, *(model.get_submodule(".".join(path[: i + 1])) for i in range(len(path)))]
        self.module = self.modules[-1]
        self.in_backbone = name.startswith("backbone.")
        encodings = [module for module in self.modules if isinstance(module, PositionEncoding)]
        self.encoding = encodings[-1].name if encodings else None
        self.is_bias = name.endswith("bias")
        stem = getattr(getattr(getattr(model, "backbone", None), "model", None), "patch_embed", None)
        # Called stage1_conv_embed.2 by CSWin's authors, proj.1 and so on by RMT's, which does not say norm.
        unnamed = ("CSWinTransformer", "RMT")
        self.is_unnamed_norm = stem in self.modules and type(model.backbone.model).__name__ in unnamed

    @property
    def is_position(self) -> bool:
        """What published models do not decay; LePE's convolutions are ordinary ones."""
        return self.encoding not in (None, "lepe", "cpe") or self.name.endswith("cls_token")

    @property
    def is_norm(self) -> bool:
        """In the eyes of torch, or of detectron2, whose norm over maps is another class."""
        return isinstance(self.module, NORMS) and not isinstance(self.module, LayerNorm2d)

    @property
    def is_queries(self) -> bool:
        return any(part in self.name for part in ("query_embed", "query_feat", "level_embed"))


def by_name_in_backbones(owner: Owner) -> bool:
    """custom_keys of Swin's and CSWin's configs: norms of the backbone and positions; batch norms are called bn."""
    return not (owner.is_position or (owner.in_backbone and owner.is_norm and not owner.is_unnamed_norm))


RULES: dict[str, Callable[[Any], bool]] = {
    # timm: one dimension, biases, no_weight_decay().
    "matrices, no positions": lambda o: o.value.ndim > 1 and not o.is_bias and not o.is_position,
    "all but norms and positions of the backbone": by_name_in_backbones,
    # Rotary frequencies stay without, as RoPE-ViT has them.
    "all but torch's norms and absolute positions": lambda o: not (o.is_norm or o.encoding in ("ape", "rope_mixed")),
    "all but torch's norms": lambda o: not o.is_norm,
    "all but norms, positions and queries": lambda o: not (o.is_norm or o.is_position or o.is_queries),
    "everything": lambda o: True,
    "matrices": lambda o: o.value.ndim > 1 and not o.is_bias,
    "matrices, no positions nor their convolutions": lambda o: (
        o.value.ndim > 1 and not o.is_bias and o.encoding is None
    ),
    "all but norms of the backbone": lambda o: not (o.in_backbone and o.is_norm and o.encoding is None),
}


def rule_of(file: str) -> str:
    (name,) = {
        row[1]
        for each in RECIPES.values()
        if CONFIGS / file in files(each)
        for row in each["rows"]
        if row[0] == "decays"
    }
    return name


def built(file: str) -> tuple[nn.Module, Config]:
    config = Config.fromfile(CONFIGS / file)
    init_default_scope(config.default_scope)
    if "imagenet" in file:
        slim_classifier(config.model)
    else:
        slim(config)
    return revert_sync_batchnorm(MODELS.build(config.model)), config


@pytest.mark.parametrize("file", FILES)
def test_decay_and_rates(file: str) -> None:
    model, config = built(file)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    rule, settings = rule_of(file), config.optim_wrapper.optimizer
    factors = config.optim_wrapper.get("paramwise_cfg", {}).get("lr_mult", {})
    layers = config.optim_wrapper.get("paramwise_cfg", {}).get("layer_decay")
    decayed = 0
    for name, (rate, decay) in found.items():
        owner = Owner(model, name)
        expected = RULES[rule](owner)
        assert decay == (settings.weight_decay if expected else 0), f"{name}: {rule}"
        decayed += expected
        rate_of = maes_rate if "imagenet" in file else vitdets_rate
        factor = factors.get(name.split(".")[0], 1.0) if layers is None else rate_of(name, model, layers)
        assert rate == pytest.approx(settings.lr * factor), name
    assert decayed > 0.2 * len(found)
    assert decayed < len(found) or rule == "everything"


def vitdets_rate(name: str, model: Any, decay: float) -> float:
    """detectron2's get_vit_lr_decay_rate; of a table for several blocks, that of the last."""
    backbone, layer = model.backbone.model, len(model.backbone.model.blocks) + 1
    top = layer
    if name.startswith("backbone."):
        if ".ape." in name or "patch_embed" in name or "cls_token" in name:
            layer = 0
        elif "blocks." in name:
            layer = int(name.split("blocks.")[1].split(".")[0]) + 1
        elif "pos_encoding" in name:
            kind = name.split(".inside.")[1].split(".")[0] if ".inside." in name else None
            places = getattr(backbone, "places", {})
            blocks = [block for block, (its, _) in places.items() if its == kind] or list(range(top - 1))
            layer = max(blocks) + 1
    return decay ** (top - layer)


def maes_rate(name: str, model: Any, decay: float) -> float:
    """MAE's param_groups_lrd: blocks are counted through all stages, what stands behind them has the whole rate."""
    top = layer = len(model.model.blocks) + 1
    if name.startswith("model.blocks."):
        layer = int(name.split(".")[2]) + 1
    elif "pos_encoding" in name or "patch_embed" in name:
        layer = 0
    return decay ** (top - layer)


def test_the_rules_differ() -> None:
    """On one model: what Swin's, detectron2's and timm's rules say of biases, norms and tables."""
    model, _ = built("coco/mask_rcnn_vitdet_b_lsj100e.py")
    bias, norm = "backbone.model.blocks.0.attn.qkv.bias", "backbone.model.blocks.0.norm1.weight"
    table = "backbone.model.pos_encoding.inside.whole.decomposed.height_table"
    head = next(name for name, m in model.named_modules() if isinstance(m, LayerNorm2d) and "roi_head" in name)
    said = {}
    for rule in list(RULES)[:3]:
        owners = [Owner(model, name) for name in (bias, norm, table, f"{head}.weight")]
        said[rule] = [RULES[rule](owner) for owner in owners]
    assert list(said.values()) == [[False] * 4, [True, False, False, True], [True, False, True, True]]


def test_a_step_decays_by_these_groups() -> None:
    """Without a gradient, what decays shrinks by rate times decay, and nothing else moves."""
    model, config = built("coco/mask_rcnn_swin_t_1x.py")
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    before: dict[str, Tensor] = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        owner = Owner(model, name)
        factor = 1 - 1e-4 * 0.05 if by_name_in_backbones(owner) else 1
        torch.testing.assert_close(p.detach(), before[name] * factor, atol=0, rtol=1e-6)
