# The papers of these backbones train no RetinaNet: this is the optimizer of Swin's Mask R-CNN, and mmdet's images.
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, type="TimmFeatures", model_name="cswin_t"))
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(decay_mult={"*bias": 1.0, "*norm*": 0.0}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
