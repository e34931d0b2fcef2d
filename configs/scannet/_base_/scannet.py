"""ScanNet v2 at 2 cm: the published augmentation and input of Swin3D (https://arxiv.org/abs/2304.06906).

Data: data/scannet with scans/ and the lists of scenes scannetv2_train.txt and scannetv2_val.txt.
"""

dataset_type = "ScanNetDataset"
data_root = "data/scannet"
voxel = 0.02

train_pipeline = [
    dict(type="RotateCloud"),
    dict(type="ScaleCloud", scales=(0.8, 1.2)),
    dict(type="DropColor", prob=0.2),
    dict(type="VoxelizeCloud", size=voxel),
    dict(type="CropCloud", max_voxels=120_000),
    dict(type="PackCloud", normals=True),
]
view = [dict(type="VoxelizeCloud", size=voxel, keep="first"), dict(type="PackCloud", normals=True)]
# Results with votes: --cfg-options test_dataloader.dataset.pipeline.0.times=12
test_pipeline = [dict(type="CloudVotes", times=1, transforms=view)]

train_scenes = dict(type=dataset_type, data_root=data_root, split="train", pipeline=train_pipeline)
val_scenes = dict(type=dataset_type, data_root=data_root, split="val", test_mode=True)
train_dataloader = dict(
    batch_size=3,
    num_workers=8,
    # mmengine seeds new workers alike: they would repeat the augmentation of the first epoch.
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="RepeatDataset", times=6, dataset=train_scenes),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=view, **val_scenes),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=test_pipeline, **val_scenes),
)
val_evaluator = dict(type="CloudMetric", ignore_index=-100)
test_evaluator = val_evaluator
