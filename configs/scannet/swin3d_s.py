# Swin3D-S (https://arxiv.org/abs/2304.06906) on ScanNet v2, 100 epochs of six passes, batch 3, cosine from 6e-3 to 1e-6
# with 3,000 iterations of warm-up, from scratch: 75.2 mIoU are published. Published with mixed precision: --amp.
_base_ = ["../_base_/clouds.py", "_base_/scannet.py"]

model = dict(
    type="CloudSegmentor",
    model_name="swin3d_s_unet",
    num_classes=20,
    ignore_index=-100,
    in_chans=9,
    signals="XYZ_RGB_NORM",
    first_down_stride=3,
    drop_path_rate=0.3,
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-3, weight_decay=0.05),
    # Published for every name with "blocks", decoder and tables too; here the tables stand in pos_encoding.
    paramwise_cfg=dict(custom_keys=dict(blocks=dict(lr_mult=0.1), pos_encoding=dict(lr_mult=0.1))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6 / 6e-3, by_epoch=False, begin=0, end=3000),
    dict(type="CosineAnnealingLR", T_max=100, eta_min=1e-6, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=5)
