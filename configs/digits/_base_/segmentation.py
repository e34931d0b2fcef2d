"""Segmentation of digit scenes with the digits as classes; the heads are in fcn.py and upernet.py.

Scenes: `visionpe scenes`.
"""

_base_ = ["mmseg::_base_/datasets/ade20k.py", "mmseg::_base_/default_runtime.py", "schedule.py"]
custom_imports = dict(imports=["visionpe.detection", "visionpe.detection.running.metrics"], allow_failed_imports=False)

dim, width = 128, 48  # channels of the backbone and of the pyramid
model = dict(
    type="EncoderDecoder",
    # Statistics of the training scenes.
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[68.0] * 3,
        std=[40.5] * 3,
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=16,
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        type="TimmFeatures",
        model_name="none_vit_ti",
        img_size=64,
        patch_size=8,
        embed_dim=dim,
        depth=4,
        num_heads=4,
        init_values=0,  # no LayerScale
        class_token=False,
        global_pool="",
        out_indices=(3,),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

metainfo = dict(
    classes=("background", *"0123456789"),
    palette=[
        [40, 40, 40], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48],
        [145, 30, 180], [70, 240, 240], [240, 50, 230], [210, 245, 60], [250, 190, 212],
    ],
)  # fmt: skip
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale_factor=1.0),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
# ADE20KDataset insists on its own 150 classes.
dataset = dict(type="BaseSegDataset", data_root="data/digit_scenes/ade", metainfo=metainfo, reduce_zero_label=True)
train_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(batch_size=20, num_workers=1, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
# The IoU of every class too, so that the digits can be told from the background.
val_evaluator = dict(type="ClassIoUMetric")
test_evaluator = val_evaluator

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=50, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
randomness = dict(seed=0)
