# COCO for 12 epochs, batch 8 x 2, as Swin's authors train it (https://arxiv.org/abs/2103.14030, appendix A2.2;
# SwinTransformer/Swin-Transformer-Object-Detection, configs/swin): several scales and crops, AdamW 1e-4. CSWin says
# that it follows them (https://arxiv.org/abs/2107.00652, section 4.2), and publishes no configs of detectors.
_base_ = [
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

scales = [(short, 1333) for short in range(480, 801, 32)]
crop = [
    dict(type="RandomChoiceResize", scales=[(400, 1333), (500, 1333), (600, 1333)], keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 600), allow_negative_crop=True),
]
resize = [dict(type="RandomChoiceResize", scales=scales, keep_ratio=True)]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoice", transforms=[resize, [*crop, *resize]]),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # As published: biases decay, and batch norms of heads; norms of the backbone and positions do not.
    paramwise_cfg=dict(decay_mult={"*bias": 1.0, "*.bn.*": 1.0, "*norm*": 0.0}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
