# Another position encoding for trained weights: a ViT-S/14 whose table is exchanged learns to give the features that it
# gave with it, at 224 pixels, without labels. `--cfg-options model.backbone.pos_encoding=alibi` takes another encoding,
# model.{backbone,teacher}.checkpoint_path=FILE other weights.
_base_ = "../_base_/runtime.py"
custom_imports = dict(imports=["visionpe.detection", "visionpe.detection.models.distiller"], allow_failed_imports=False)

custom_hooks = [dict(type="ExportBackbone")]

iters, warmup, size = 400, 40, 224

features = dict(
    type="TimmFeatures",
    model_name="dinov2_vit_s.lvd142m",
    pretrained=True,
    out_indices=(3, 7, 11),
    final_norm=True,
)
model = dict(
    type="FeatureDistiller",
    data_preprocessor=dict(
        type="mmpretrain.SelfSupDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(**features, img_size=size, pos_encoding="rope_axial"),
    teacher=features,
)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="PhotographsDataset",
        name="caltech101",
        split="train",
        short_side=256,
        pipeline=[
            dict(type="torchvision/RandomResizedCrop", size=size, scale=(0.35, 1.0), interpolation="bicubic"),
            dict(type="torchvision/RandomHorizontalFlip"),
            dict(type="PackInputs"),
        ],
    ),
)
train_cfg = dict(by_epoch=False, max_iters=iters)
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.02),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=warmup),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=warmup, end=iters),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=50, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
