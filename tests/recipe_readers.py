"""What a config says of the fields in which published recipes are written down (tests/detection/published/*.toml)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config

READERS: dict[str, Callable[[Config], Any]] = {}


def reads(field: str) -> Callable[[Callable[[Config], Any]], Callable[[Config], Any]]:
    """Let a function give the value of a field."""

    def register(reader: Callable[[Config], Any]) -> Callable[[Config], Any]:
        READERS[field] = reader
        return reader

    return register


def steps(config: Any, *kinds: str) -> Iterator[Any]:
    """Transforms of these types in a pipeline, in branches too."""
    for item in config if isinstance(config, (list, tuple)) else ():
        if isinstance(item, (list, tuple)):
            yield from steps(item, *kinds)
        else:
            if item["type"].split(".")[-1] in kinds:
                yield item
            yield from steps(item.get("transforms"), *kinds)


def dataset(config: Config, stage: str = "train") -> Any:
    found = config[f"{stage}_dataloader"].dataset
    while "dataset" in found:
        found = found.dataset
    return found


def train(config: Config, *kinds: str) -> list[Any]:
    return list(steps(dataset(config).pipeline, *kinds))


def network(config: Config) -> Any:
    """The config of the model, or of its backbone."""
    return config.model.get("backbone", config.model)


def optimizer(config: Config) -> Any:
    return config.optim_wrapper.optimizer


def schedule(config: Config, *kinds: str) -> Any:
    return next((step for step in config.param_scheduler if step["type"] in kinds), None)


def roi_head(config: Config) -> Any:
    return config.model.roi_head


def boxes(config: Config) -> Any:
    """The head of the first stage."""
    head = roi_head(config).bbox_head
    return head[0] if isinstance(head, list) else head


@reads("batch")
def _batch(config: Config) -> int:
    batch = config.train_dataloader.batch_size
    gpus = 32 if config.train_dataloader.dataset.type == "RepeatDataset" else 8  # ViTDet's, and all others
    stated = config.get("auto_scale_lr", {}).get("base_batch_size", gpus * batch)
    assert stated == gpus * batch
    return stated


def _warm_up(config: Config) -> Any:
    return schedule(config, "LinearLR")


@reads("lowest rate")
def _lowest(config: Config) -> float:
    falling = schedule(config, "CosineAnnealingLR")
    if falling is None:
        return optimizer(config).lr
    return optimizer(config).lr * falling.eta_min_ratio if "eta_min_ratio" in falling else falling.eta_min


@reads("rate moves")
def _moves(config: Config) -> str:
    by_epoch = [step.get("by_epoch", True) and not step.get("convert_to_iter_based") for step in config.param_scheduler]
    return "every epoch" if any(by_epoch) else "every iteration"


@reads("cuts, share of the run")
def _shares(config: Config) -> list[float]:
    return [cut / config.train_cfg.max_epochs for cut in schedule(config, "MultiStepLR").milestones]


@reads("passes over the images")
def _passes(config: Config) -> int:
    return config.train_cfg.max_epochs * config.train_dataloader.dataset.times


@reads("clipping")
def _clipping(config: Config) -> Any:
    if optimizer(config).type == "Lamb":
        return optimizer(config).get("max_grad_norm", 1.0)  # mmpretrain's default
    for hook in config.get("custom_hooks", ()):
        if hook["type"] == "AdaptiveClipHook":
            return f"{hook.factor} of the norms of weights"
    return (config.optim_wrapper.get("clip_grad") or {}).get("max_norm", "none")


@reads("loss")
def _loss(config: Config) -> str:
    loss = config.model.loss
    if loss.type == "TimmBinaryCrossEntropy" and loss.target_threshold == 0:
        return "binary cross-entropy, targets above 0 in full"
    return {"LabelSmoothLoss": "cross-entropy"}.get(loss.type, loss.type)


@reads("label smoothing")
def _smoothing(config: Config) -> float:
    loss = config.model.loss
    assert loss.get("mode", "original") == "original"
    return loss.get("label_smooth_val", loss.get("smoothing"))


@reads("augmentation")
def _augmentation(config: Config) -> str:
    policies = train(config, "RandAugment")
    if policies:
        assert all((p.policies, p.total_level) == ("timm_increasing", 10) for p in policies)
        (number,) = {p.num_policies for p in policies}
        several = "" if number == 2 else f"-n{number}"
        return f"rand-m{policies[0].magnitude_level}{several}-mstd{policies[0].magnitude_std}-inc1"
    kinds = {"RandomGrayscale", "Solarize", "GaussianBlur"}
    return "3-Augment" if {step.type for step in train(config, *kinds)} == kinds else "none"


@reads("colour jitter")
def _jitter(config: Config) -> float:
    (step,) = train(config, "ColorJitter")
    assert step.brightness == step.contrast == step.saturation
    return step.brightness


@reads("interpolation")
def _interpolation(config: Config) -> str:
    crops = [step.interpolation for step in train(config, "RandomResizedCrop")]
    assert [step.hparams.interpolation for step in train(config, "RandAugment")] in (crops, [])
    return " or ".join(crops)


@reads("random erasing")
def _erasing(config: Config) -> float:
    return sum(step.erase_prob for step in train(config, "RandomErasing"))


@reads("an image in an epoch")
def _repeats(config: Config) -> int:
    sampler = config.train_dataloader.sampler
    return sampler.get("num_repeats", 3) if sampler.type == "RepeatAugSampler" else 1


@reads("test crop")
def _crop(config: Config) -> str:
    pipeline = dataset(config, "test").pipeline
    (resize,), (crop,) = list(steps(pipeline, "ResizeEdge")), list(steps(pipeline, "CenterCrop"))
    assert crop.crop_size == config.model.img_size
    return f"{crop.crop_size} of {resize.scale}"


@reads("average of weights")
def _average(config: Config) -> Any:
    hooks = [hook for hook in config.custom_hooks if hook["type"] == "EMAHook"]
    return 1 - hooks[0].momentum if hooks else "none"


@reads("mixup, cutmix")
def _mixed(config: Config) -> list[float]:
    alphas = {each.type: each.alpha for each in config.model.train_cfg.augments}
    return [alphas["Mixup"], alphas["CutMix"]]


@reads("stochastic depth by block")
def _by_block(config: Config) -> str:
    return "constant" if config.model.get("constant_drop_path") else "growing"


@reads("shorter side")
def _shorter(config: Config) -> list[int]:
    """Of what is seen last: the first branch of the choice."""
    resizes = train(config, "RandomChoiceResize")
    if not resizes:
        (resize,) = train(config, "Resize")
        return [min(resize.scale)] * 2
    sides = [short for short, _ in resizes[0].scales]
    assert resizes[-1].scales == resizes[0].scales
    return [min(sides), max(sides)]


@reads("box head")
def _box_head(config: Config) -> str:
    head = boxes(config)
    assert head.type == "Shared4Conv1FCBBoxHead"
    assert head.conv_out_channels == 256
    return f"4 convolutions, 1 linear, {head.norm_cfg.type}"


@reads("norms of features")
def _norms(config: Config) -> str:
    backbone = network(config)
    has_norms = backbone.get("feature_norms", "cswin" in backbone.model_name or "rmt" in backbone.model_name)
    return "fresh" if has_norms and backbone.get("fresh_norms") else "of the classifier"


@reads("padding of windows")
def _padding(config: Config) -> str:
    names = {"mask": "masked", "tokens": "zero tokens", "values": "zero keys and values"}
    return names[network(config).get("padding", "mask")]


@reads("weights to start from")
def _weights(config: Config) -> str:
    assert network(config).pretrained
    return {"mae_in1k": "MAE", "mae": "MAE"}.get(tag := network(config).model_name.partition(".")[2], tag)


READERS |= {
    "epochs": lambda c: c.train_cfg.max_epochs,
    "iterations": lambda c: c.train_cfg.max_iters,
    "passes in an epoch": lambda c: c.train_dataloader.dataset.times,
    "batch of one GPU": lambda c: c.train_dataloader.batch_size,
    "optimizer": lambda c: {"Lamb": "LAMB"}.get(optimizer(c).type, optimizer(c).type),
    "rate": lambda c: optimizer(c).lr,
    "epsilon": lambda c: optimizer(c).get("eps", 1e-6 if optimizer(c).type == "Lamb" else 1e-8),  # their defaults
    "weight decay": lambda c: optimizer(c).weight_decay,
    "warm-up epochs": lambda c: _warm_up(c).end,
    "warm-up iterations": lambda c: _warm_up(c).end if _warm_up(c) else "none",
    "warm-up factor": lambda c: _warm_up(c).start_factor,
    "warm-up from": lambda c: _warm_up(c).start_factor * optimizer(c).lr,
    "cuts of the rate": lambda c: schedule(c, "MultiStepLR").milestones,
    "power of the decline": lambda c: schedule(c, "PolyLR").power,
    "rate of the backbone": lambda c: c.optim_wrapper.paramwise_cfg.lr_mult.backbone,
    "rate of the pyramid": lambda c: c.optim_wrapper.paramwise_cfg.lr_mult.neck,
    "rate of the head": lambda c: c.optim_wrapper.paramwise_cfg.lr_mult.decode_head,
    "rate of blocks": lambda c: c.optim_wrapper.paramwise_cfg.custom_keys.blocks.lr_mult,
    "layer decay": lambda c: c.optim_wrapper.paramwise_cfg.layer_decay or "none",
    "teacher": lambda c: c.model.get("teacher", "none"),
    "stochastic depth": lambda c: network(c).drop_path_rate,
    "LayerScale": lambda c: network(c).get("init_values", 1e-4),
    "image side": lambda c: network(c).img_size,
    "blocks": lambda c: list(network(c).out_indices),
    "longer side at most": lambda c: max(side for _, side in train(c, "RandomChoiceResize")[-1].scales),
    "crops": lambda c: list(train(c, "RandomCrop")[0].crop_size),
    "crop": lambda c: train(c, "RandomCrop")[0].crop_size[0],
    "one class at most": lambda c: train(c, "RandomCrop")[0].cat_max_ratio,
    "jitter of scale": lambda c: list(train(c, "RandomResize")[0].ratio_range),
    "images without boxes": lambda c: "left out" if dataset(c).filter_cfg.filter_empty_gt else "trained on",
    "images whose boxes were cropped away": lambda c: ["trained on", "left out"][
        train(c, "FilterAnnotations")[0].keep_empty
    ],
    "queries": lambda c: c.model.num_queries,
    "temperature of the encoder's positions": lambda c: c.model.positional_encoding.temperature,
    "square": lambda c: c.model.data_preprocessor.pad_size_divisor,
    "window": lambda c: network(c).get("window_size", 14),
    "windows": lambda c: network(c).get("window_size", "none"),
    "levels": lambda c: list(c.model.neck.get("scales", (4.0, 2.0, 1.0, 0.5))),
    "number of levels": lambda c: c.model.neck.num_outs,
    "weights of stages": lambda c: list(roi_head(c).stage_loss_weights),
    "gradient of what stages share": lambda c: round(roi_head(c).bbox_roi_extractor.gradient_scale, 4),
    "mask heads": lambda c: roi_head(c).num_stages,
    "box loss": lambda c: f"{boxes(c).loss_bbox.type.removesuffix('Loss')} x {boxes(c).loss_bbox.loss_weight:g}",
    "proposals in training": lambda c: c.model.train_cfg.rpn_proposal.max_per_img,
    "loss of the proposals": lambda c: c.model.rpn_head.loss_bbox.type.removesuffix("Loss"),
    "convolutions of the proposals": lambda c: c.model.rpn_head.num_convs,
    "weight of the auxiliary loss": lambda c: c.model.auxiliary_head.loss_decode.loss_weight,
}
