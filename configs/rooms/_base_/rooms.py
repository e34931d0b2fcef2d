"""Labelled rooms built by rule: tiny models learn them in a few minutes on two CPU cores, from no data at all.

All recipes here differ in the model and its encoding alone.
"""

_base_ = ["../../_base_/clouds.py"]

voxel = 0.08
epochs = 6

train_pipeline = [
    dict(type="RotateCloud"),
    dict(type="ScaleCloud", scales=(0.9, 1.1)),
    dict(type="VoxelizeCloud", size=voxel),
    dict(type="CropCloud", max_voxels=6000),
    dict(type="PackCloud"),
]
view = [dict(type="VoxelizeCloud", size=voxel, keep="first"), dict(type="PackCloud")]
room = dict(points=30_000)

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    # mmengine seeds new workers alike: they would repeat the augmentation of the first epoch.
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="RoomsDataset", split="train", rooms=60, room=room, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RoomsDataset", split="val", rooms=8, room=room, pipeline=view, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RoomsDataset", split="test", rooms=20, room=room, pipeline=view, test_mode=True),
)
val_evaluator = dict(type="CloudMetric")
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=5e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=epochs, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=1)
auto_scale_lr = dict(base_batch_size=2)
default_hooks = dict(logger=dict(interval=10))
