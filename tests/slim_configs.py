"""Models of the configs at a size for tests: the same parts, few channels, small images."""

from mmengine.registry import MODELS

# By the ending of the model's name, the longest first.
BACKBONES = {
    "vitdet_b": {"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 64},
    "crossformer_s": {"embed_dim": 16, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "cswin_t": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (2, 4, 8, 8)},
    "rmt_t": {"embed_dim": (16, 32, 32, 32), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 4)},
    "rmt_s": {"embed_dim": (16, 32, 32, 32), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 4)},
    "mvitv2_t": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": 1},
    "hiera_b": {"embed_dim": 16, "stages": (1, 1, 1, 1), "num_heads": 1},
    "swin_t": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "dinov3_vit_b": {"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 32},
    "dinov2_vit_b": {"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 32},
    "dinov2_vit_s": {"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 56},
    "vit_b": {"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 32},
}
# Of classifiers, by a part of the model's name; others are pyramids.
VIT = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}
PYRAMID = {"img_size": 32, "embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (2, 2, 2, 4)}
LINES = PYRAMID | {"embed_dim": (16, 16, 16, 16)}
CLASSIFIERS = {
    "vit": VIT,
    "cpvt": VIT,
    "rmt": LINES,
    "mit": LINES | {"num_heads": (1, 2, 2, 2)},
    "cvt": {"img_size": 32, "embed_dim": (16, 16, 16), "depths": (1, 1, 2), "num_heads": (1, 2, 2)},
    "twins": {"img_size": 64, "embed_dims": (8, 8, 16, 16), "depths": (2, 1, 2, 1), "num_heads": (1, 1, 2, 2)},
    "levit": {"img_size": 64, "embed_dim": (16, 32, 32), "depth": (1, 2, 1), "num_heads": (1, 2, 2), "key_dim": 8},
    "mvitv2": {"img_size": 64, "embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": 1},
    "hiera": {"img_size": 64, "embed_dim": 16, "stages": (1, 2, 1, 1), "num_heads": 1},
}
WIDTH = 16
# Numbers in necks and heads are lowered to these.
LIMITS = {
    "in_channels": WIDTH,
    "out_channels": WIDTH,
    "feat_channels": WIDTH,
    "conv_out_channels": WIDTH,
    "fc_out_channels": WIDTH,
    "feedforward_channels": WIDTH,
    "embed_dims": WIDTH,
    "channels": WIDTH,
    "num_feats": WIDTH // 2,
    "num_groups": 4,
    "num_layers": 2,
    "num_convs": 1,
    "stacked_convs": 1,
    "num_queries": 20,
    "num_dn_queries": 4,
    "num_points": 64,
    "nms_pre": 50,
    "max_per_img": 20,
    "num": 32,  # regions of interest
    "score_thr": 0,
}
SIZES = ("scale", "scales", "crop_size", "max_size")


def _entries(config):
    return config.items() if isinstance(config, dict) else enumerate(config)


def _narrow(config):
    for key, value in _entries(config):
        if isinstance(value, (int, float)) and key in LIMITS:
            config[key] = min(value, LIMITS[key])
        elif key == "in_channels":
            config[key] = [min(v, LIMITS[key]) for v in value]
        elif isinstance(value, (dict, list)):
            _narrow(value)


def shrink_pipeline(config, factor):
    """Divide the sizes in a data pipeline by ``factor``, in place."""

    def divided(value):
        return type(value)(map(divided, value)) if isinstance(value, (list, tuple)) else max(1, value // factor)

    for key, value in _entries(config):
        if key in SIZES:
            config[key] = divided(value)
        elif isinstance(value, (dict, list)):
            shrink_pipeline(value, factor)


def _slim_backbone(backbone):
    """Few channels and blocks, no weights to load; returns the channels of its features."""
    for key in ("pretrained", "init_cfg"):
        backbone.pop(key, None)
    name = backbone.model_name.split(".")[0]
    backbone.update(next(small for ending, small in BACKBONES.items() if name.endswith(ending)))
    if "depth" in backbone:  # a third of the blocks
        backbone.out_indices = tuple(i // 3 for i in backbone.out_indices)
        backbone.frozen_stages = min(backbone.get("frozen_stages", -1), backbone.depth)
    return MODELS.build(backbone).channels


def _slim_detector(model):
    """Ten classes, and anchors that fit into small images."""
    roi_head = model.get("roi_head", {})
    boxes = roi_head.get("bbox_head", [])
    for head in (model.get("bbox_head"), roi_head.get("mask_head"), *(boxes if isinstance(boxes, list) else [boxes])):
        if head:
            head.num_classes = 10
    if "rpn_head" in model:
        model.rpn_head.anchor_generator.scales = [2]
    if model.type == "DINO":
        model.bbox_head.embed_dims = WIDTH


def slim_classifier(model):
    """Make the model of a config of ``imagenet/`` small, in place; it has no weights to load."""
    model.pop("pretrained", None)
    parts = model.model_name.split(".")[0].split("_")
    model.update(next((CLASSIFIERS[part] for part in parts if part in CLASSIFIERS), PYRAMID))


def slim(config):
    """Make the model of a config small, in place.

    Args:
        config: A config of ``coco/`` or ``ade20k/``; its backbone is a ``TimmFeatures``.
    """
    backbone, model = config.model.pop("backbone"), config.model
    _narrow(model)
    channels = _slim_backbone(backbone)
    model.backbone = backbone
    for name in ("neck",) if model.get("neck") else ("decode_head", "auxiliary_head"):
        reader = model.get(name)
        if reader and isinstance(reader.in_channels, int):
            reader.in_channels = channels[reader.get("in_index", -1)]
        elif reader:
            reader.in_channels = channels
    if config.default_scope == "mmdet":
        _slim_detector(model)
    preprocessor = model.data_preprocessor
    if preprocessor.get("pad_size_divisor") == 1024:
        preprocessor.pad_size_divisor = 128
    if preprocessor.get("size"):
        preprocessor.size = (64, 64)
