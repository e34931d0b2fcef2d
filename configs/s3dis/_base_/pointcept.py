"""S3DIS at 2 cm in Pointcept's layout: the published augmentation and input of Point Transformer V3.

Data: data/pointcept/s3dis with Area_1 to Area_6, a folder of .npy files a room, preprocessed with --parse_normal.

Left out: CenterShift and positions as Pointcept centres them, since voxels are counted from the corner of the cloud
here and no feature is a position. At test time a voxel has the scores of one of its points, where the published code
runs every point of every voxel through the model.
"""

dataset_type = "PointceptS3DISDataset"
data_root = "data/pointcept/s3dis"
test_area = 5
voxel = 0.02

pack = dict(type="PackCloud", normals=True, recipe="ptv3")
train_pipeline = [
    dict(type="DropPoints", share=0.2, prob=0.2),
    dict(type="RotateCloud", axis="z", degrees=(-180, 180), prob=0.5),
    dict(type="RotateCloud", axis="x", degrees=(-180 / 64, 180 / 64), prob=0.5),
    dict(type="RotateCloud", axis="y", degrees=(-180 / 64, 180 / 64), prob=0.5),
    dict(type="ScaleCloud", scales=(0.9, 1.1)),
    dict(type="FlipCloud", prob=0.5),
    dict(type="JitterCloud", sigma=0.005, clip=0.02),
    dict(type="ContrastColor", prob=0.2),
    dict(type="ShiftColor", prob=0.95, ratio=0.05),
    dict(type="JitterColor", prob=0.95, sigma=0.05),
    dict(type="VoxelizeCloud", size=voxel),
    dict(type="CropCloud", share=0.6),
    dict(type="CropCloud", max_voxels=204_800),
    pack,
]
view = [dict(type="VoxelizeCloud", size=voxel, keep="first"), pack]
scaled = [[dict(type="ScaleCloud", scales=(scale, scale))] for scale in (0.9, 0.95, 1.0, 1.05, 1.1)]
views = [*scaled, *([*steps, dict(type="FlipCloud", prob=1.0)] for steps in scaled)]
# One view: --cfg-options test_dataloader.dataset.pipeline.0.views="[[]]"
test_pipeline = [dict(type="CloudVotes", views=views, transforms=view)]

rooms = dict(type=dataset_type, data_root=data_root, test_area=test_area)
train_dataloader = dict(
    batch_size=3,
    num_workers=6,
    # mmengine seeds new workers alike: they would repeat the augmentation of the first epoch.
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="RepeatDataset", times=30, dataset=dict(split="train", pipeline=train_pipeline, **rooms)),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(split="test", pipeline=view, test_mode=True, **rooms),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(split="test", pipeline=test_pipeline, test_mode=True, **rooms),
)
val_evaluator = dict(type="CloudMetric", ignore_index=255)
test_evaluator = dict(type="CloudMetric", ignore_index=255)
