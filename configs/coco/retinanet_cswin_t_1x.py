_base_ = "_base_/retinanet_1x.py"

model = dict(
    backbone=dict(
        model_name="cswin_t",
        pretrained=True,
        fresh_norms=True,
        padding="values",
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=[128, 256, 512], start_level=0),
)
# By its published name the norm of the stem is none: it decays.
optim_wrapper = dict(paramwise_cfg=dict(decay_mult={"*.patch_embed.norm.*": 1.0}))
