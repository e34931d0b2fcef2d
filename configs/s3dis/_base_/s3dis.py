"""S3DIS at 4 cm: the published augmentation and input of Swin3D (https://arxiv.org/abs/2304.06906).

Data: data/s3dis/Stanford3dDataset_v1.2_Aligned_Version with Area_1 to Area_6. Rooms are cached beside them as .npy.
"""

dataset_type = "S3DISDataset"
data_root = "data/s3dis/Stanford3dDataset_v1.2_Aligned_Version"
test_area = 5
voxel = 0.04

train_pipeline = [
    dict(type="RotateCloud"),
    dict(type="ScaleCloud", scales=(0.8, 1.2)),
    dict(type="JitterCloud", sigma=0.005, clip=0.02),
    dict(type="DropColor", prob=0.2),
    dict(type="SwapAxes"),  # the pre-trained weights stand along y
    dict(type="VoxelizeCloud", size=voxel),
    dict(type="CropCloud", max_voxels=80_000),
    dict(type="PackCloud"),
]
view = [dict(type="SwapAxes"), dict(type="VoxelizeCloud", size=voxel, keep="first"), dict(type="PackCloud")]
# Results with votes: --cfg-options test_dataloader.dataset.pipeline.0.times=12
test_pipeline = [dict(type="CloudVotes", times=1, transforms=view)]

rooms = dict(type=dataset_type, data_root=data_root, test_area=test_area)
train_dataloader = dict(
    batch_size=3,
    num_workers=8,
    # mmengine seeds new workers alike: they would repeat the augmentation of the first epoch.
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="RepeatDataset", times=6, dataset=dict(split="train", pipeline=train_pipeline, **rooms)),
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
# Each config names the file of its counts; those of the six areas make the 6-fold result:
# python -m visionpe.detection.clouds.folds work_dirs/s3dis/swin3d_s.json work_dirs/s3dis/swin3d_s_area_*.json
test_evaluator = dict(type="CloudMetric", ignore_index=255)
