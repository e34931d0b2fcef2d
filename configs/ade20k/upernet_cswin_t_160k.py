_base_ = "_base_/upernet.py"

model = dict(
    backbone=dict(model_name="cswin_t", pretrained=True, padding="values"),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
# By its published name the norm of the stem is none: it decays.
optim_wrapper = dict(paramwise_cfg=dict(decay_mult={"*.patch_embed.norm.*": 1.0}))
