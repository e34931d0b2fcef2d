# RMT's (https://arxiv.org/abs/2309.11523, section 4.3; qhfan/RMT, segmentation/configs/RMT/RMT_Uper_s_2x.py). It starts
# from our own recipe, as the authors' weights have no address that a program could load from.
_base_ = "_base_/upernet.py"

weights = "work_dirs/imagenet/rmt_300e/rmt_s/model.safetensors"
model = dict(
    backbone=dict(model_name="rmt_s", init_cfg=dict(type="Pretrained", checkpoint=weights), drop_path_rate=0.15),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
# By their published names the norms of the stem are none: they decay.
optim_wrapper = dict(paramwise_cfg=dict(decay_mult={"*.patch_embed.*": 1.0}))
