_base_ = ["_base_/cascade_mask_rcnn.py", "_base_/adamw_1x.py"]

model = dict(
    backbone=dict(model_name="cswin_t", pretrained=True, padding="values", drop_path_rate=0.0),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
# By its published name the norm of the stem is none: it decays.
optim_wrapper = dict(paramwise_cfg=dict(decay_mult={"*.patch_embed.norm.*": 1.0}))
