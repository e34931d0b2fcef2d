# ViTDet (https://arxiv.org/abs/2203.16527, section 4 and appendix A.2): 100 epochs of large-scale jitter at 1024
# pixels, batch 32 x 2 = 64, layer decay 0.7, rates cut at 88% and 96%. The data with four repeats an epoch are mmdet's.
_base_ = "mmdet::common/lsj-100e_coco-instance.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1024, 1024), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay=0.7),
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=25, milestones=[22, 24], gamma=0.1),
]
