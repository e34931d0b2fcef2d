_base_ = "fcn.py"

model = dict(
    neck=dict(scales=(4, 2, 1, 0.5), num_outs=4),
    decode_head=dict(
        _delete_=True,
        type="UPerHead",
        in_channels=[_base_.width] * 4,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 4),
        channels=_base_.width,
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=dict(type="GN", num_groups=8),
        align_corners=False,
        loss_decode=_base_.loss,
    ),
)
