# UPerNet for 160,000 iterations at 512 pixels, batch 8 x 2, as Swin (https://arxiv.org/abs/2103.14030, appendix A2.3;
# SwinTransformer/Swin-Transformer-Semantic-Segmentation, configs/swin) and CSWin (https://arxiv.org/abs/2107.00652,
# section 4.3; microsoft/CSWin-Transformer, segmentation) train it: AdamW 6e-5, decay 0.01, 1,500 iterations of warm-up,
# then linearly to zero. Norms of the features start anew, as published.
# Where windows do not divide the map, what is beyond it is masked; Swin's attends to zero tokens there.
_base_ = "mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)
auto_scale_lr = dict(base_batch_size=16)

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="swin_t",
        feature_norms=True,
        fresh_norms=True,
        drop_path_rate=0.3,
    )
)
# As published: biases decay, and batch norms of heads; norms of the backbone and positions do not.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    paramwise_cfg=dict(_delete_=True, decay_mult={"*bias": 1.0, "*.bn.*": 1.0, "*norm*": 0.0}),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
