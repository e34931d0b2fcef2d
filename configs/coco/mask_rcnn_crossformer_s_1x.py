# COCO for 12 epochs, batch 8 x 2, as CrossFormer's authors train it (https://arxiv.org/abs/2108.00154, section 4.2;
# cheerss/CrossFormer, detection): the images of mmdet's 1x, AdamW 1e-4, weight decay 1e-4 on everything.
# It starts from our recipe's weights; `weights` may name their file too, which lies where no program can fetch it.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

weights = "work_dirs/imagenet/crossformer_300e/crossformer_s/model.safetensors"
model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="crossformer_s",
        drop_path_rate=0.2,
        init_cfg=dict(type="Pretrained", checkpoint=weights),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(decay_mult={"*": 1.0}),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
