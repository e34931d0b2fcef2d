# Mask2Former (https://arxiv.org/abs/2112.01527, section 4.1; facebookresearch/Mask2Former, train_net.py) with mmseg's
# numbers: AdamW 1e-4, a tenth of it in the backbone, decay 0.05, 160,000 iterations at 512 pixels, batch 8 x 2.
# Where windows do not divide the map, what is beyond it is masked; the original attends to zero tokens there.
_base_ = "mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py"
custom_imports = dict(imports=["visionpe.detection", "mmdet.models"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="swin_t",
        pretrained=True,
        feature_norms=True,
        fresh_norms=True,
        drop_path_rate=0.3,
    )
)
# As published: biases decay; norms, positions and what queries learn do not.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    paramwise_cfg=dict(
        _delete_=True,
        lr_mult=dict(backbone=0.1),
        decay_mult={"*bias": 1.0, "*norm*": 0.0, "*.gn.*": 0.0},
        no_weight_decay=["*.query_embed.*", "*.query_feat.*", "*.level_embed.*"],
    ),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
