_base_ = "segmentation.py"

iters, warmup = 1500, 100

# Nine pixels of ten are background.
loss = dict(type="CrossEntropyLoss", class_weight=[0.3] + [1.0] * 10)
model = dict(
    # One map of stride 2: strokes are two or three pixels wide.
    neck=dict(type="SimpleFeaturePyramid", in_channels=_base_.dim, out_channels=_base_.width, scales=(4,), num_outs=1),
    decode_head=dict(
        type="FCNHead",
        in_channels=_base_.width,
        in_index=0,
        channels=_base_.width,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=11,
        align_corners=False,
        loss_decode=loss,
    ),
)
train_cfg = dict(max_iters=iters, val_interval=iters)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=warmup, end=iters, T_max=iters - warmup),
]
default_hooks = dict(checkpoint=dict(interval=50))
