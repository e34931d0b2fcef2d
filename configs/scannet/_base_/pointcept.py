"""ScanNet v2 at 2 cm in Pointcept's layout: the published augmentation and input of Point Transformer V3.

Data: data/pointcept/scannet with train/ and val/, a folder of .npy files a scene.

Left out: CenterShift and positions as Pointcept centres them, since voxels are counted from the corner of the cloud
here and no feature is a position. At test time a voxel has the scores of one of its points, where the published code
runs every point of every voxel through the model.
"""

dataset_type = "PointceptScanNetDataset"
data_root = "data/pointcept/scannet"
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
    dict(type="ElasticCloud", steps=((0.2, 0.4), (0.8, 1.6)), prob=0.95),
    dict(type="ContrastColor", prob=0.2),
    dict(type="ShiftColor", prob=0.95, ratio=0.05),
    dict(type="JitterColor", prob=0.95, sigma=0.05),
    dict(type="VoxelizeCloud", size=voxel),
    dict(type="CropCloud", max_voxels=102_400),
    pack,
]
view = [dict(type="VoxelizeCloud", size=voxel, keep="first"), pack]
turns = [[dict(type="RotateCloud", degrees=(angle, angle))] for angle in (0, 90, 180, 270)]
smaller = [[*turn, dict(type="ScaleCloud", scales=(0.95, 0.95))] for turn in turns]
larger = [[*turn, dict(type="ScaleCloud", scales=(1.05, 1.05))] for turn in turns]
views = [*turns, *smaller, *larger, [dict(type="FlipCloud", prob=1.0)]]
# One view: --cfg-options test_dataloader.dataset.pipeline.0.views="[[]]"
test_pipeline = [dict(type="CloudVotes", views=views, transforms=view)]

train_scenes = dict(type=dataset_type, data_root=data_root, split="train", pipeline=train_pipeline)
val_scenes = dict(type=dataset_type, data_root=data_root, split="val", test_mode=True)
train_dataloader = dict(
    batch_size=3,
    num_workers=6,
    # mmengine seeds new workers alike: they would repeat the augmentation of the first epoch.
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="RepeatDataset", times=8, dataset=train_scenes),
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
