# ViTDet (https://arxiv.org/abs/2203.16527, section 4 and appendix A.2; facebookresearch/detectron2, projects/ViTDet):
# 100 epochs of large-scale jitter at 1024 pixels, batch 32 x 2 = 64, as 25 epochs of mmdet with four repeats. Rates are
# cut after epochs 22 and 24 of 25 (88% and 96%); published are iterations, 88.9% and 96.3% of 184,375.
_base_ = ["mmdet::common/lsj-100e_coco-instance.py", "lsj.py"]
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=_base_.lsj_train)))
val_dataloader = dict(dataset=dict(pipeline=_base_.lsj_test))
test_dataloader = dict(dataset=dict(pipeline=_base_.lsj_test))
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    # As published: all decays, tables and biases too, but for norms of the backbone and absolute positions. Norms of
    # the pyramid and heads do, since detectron2 does not count its own norm among norms. Rotary frequencies do not.
    paramwise_cfg=dict(
        layer_decay=0.7,
        decay_mult={"*": 1.0, "backbone.*norm*": 0.0, "*.ape.*": 0.0, "*.freqs": 0.0},
    ),
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=25, milestones=[22, 24], gamma=0.1),
]
