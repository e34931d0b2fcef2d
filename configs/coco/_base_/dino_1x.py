# DINO with four scales for 12 epochs (https://arxiv.org/abs/2203.03605, section 4 and appendix; mmdet's configs/dino):
# AdamW 1e-4, a tenth of it in the backbone, weight decay 1e-4 on everything, norms and biases too, batch 8 x 2.
_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

model = dict(backbone=dict(_delete_=True, type="TimmFeatures", model_name="cswin_t"))
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    paramwise_cfg=dict(_delete_=True, lr_mult=dict(backbone=0.1), decay_mult={"*": 1.0}),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
