# COCO for 12 epochs, shorter side 800 and longer side at most 1333, batch 8 x 2, with the AdamW of Swin
# (https://arxiv.org/abs/2103.14030, section 4.2 and appendix A2.2), which CSWin takes over
# (https://arxiv.org/abs/2107.00652, section 4.2).
_base_ = [
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

# No decay for norms, biases and positions: timm's no_weight_decay() knows these by name.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
