# UPerNet for 160,000 iterations at 512 pixels, batch 8 x 2, as Swin (https://arxiv.org/abs/2103.14030, section 4.3 and
# appendix A2.3) and CSWin (https://arxiv.org/abs/2107.00652, section 4.3) train it: AdamW 6e-5, decay 0.01, 1,500
# iterations of warm-up, then linearly to zero.
_base_ = "mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)
auto_scale_lr = dict(base_batch_size=16)

model = dict(
    backbone=dict(_delete_=True, type="TimmFeatures", model_name="swin_t", feature_norms=True, drop_path_rate=0.3)
)
# No decay for norms, biases and positions: timm's no_weight_decay() knows these by name.
optim_wrapper = dict(constructor="TimmOptimWrapperConstructor", paramwise_cfg=dict(_delete_=True))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
