# Swin3D-S (https://arxiv.org/abs/2304.06906) on Area 5 of S3DIS, 100 epochs of six passes, batch 3, from scratch: 72.5
# mIoU are published. Published with mixed precision: --amp. The other five areas: swin3d_s_area_N.py.
_base_ = ["../_base_/clouds.py", "_base_/s3dis.py"]

model = dict(
    type="CloudSegmentor",
    model_name="swin3d_s_unet",
    num_classes=13,
    ignore_index=255,
    in_chans=6,
    signals="XYZ_RGB",
    first_down_stride=2,
    drop_path_rate=0.3,
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-4, weight_decay=0.05),
    # Published for every name with "blocks", decoder and tables too; here the tables stand in pos_encoding.
    paramwise_cfg=dict(custom_keys=dict(blocks=dict(lr_mult=0.1), pos_encoding=dict(lr_mult=0.1))),
)
param_scheduler = [dict(type="MultiStepLR", milestones=[60, 80], gamma=0.1)]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=2)
test_evaluator = dict(counts="work_dirs/s3dis/swin3d_s.json")
