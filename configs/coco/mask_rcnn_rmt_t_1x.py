# RMT's (https://arxiv.org/abs/2309.11523, section 4.2; qhfan/RMT, detect/configs/RMT/maskrcnn_t_1x.py): one scale,
# AdamW 4e-4 with two images a GPU; on how many of them is not told. It starts from our own recipe, as the authors'
# weights have no address that a program could load from.
_base_ = ["_base_/mask_rcnn.py", "_base_/adamw_1x.py"]

weights = "work_dirs/imagenet/rmt_300e/rmt_t/model.safetensors"
model = dict(
    backbone=dict(model_name="rmt_t", init_cfg=dict(type="Pretrained", checkpoint=weights), drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# By their published names the norms of the stem are none: they decay.
optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(decay_mult={"*.patch_embed.*": 1.0}))
