# SegFormer's head and schedule (https://arxiv.org/abs/2105.15203, section 4.1): AdamW 6e-5, ten times that in the head,
# linearly to zero in 160,000 iterations at 512 pixels.
_base_ = "mmseg::segformer/segformer_mit-b1_8xb2-160k_ade20k-512x512.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)
auto_scale_lr = dict(base_batch_size=16)

model = dict(
    backbone=dict(_delete_=True, type="TimmFeatures", model_name="cswin_t", pretrained=True, drop_path_rate=0.1),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor", paramwise_cfg=dict(_delete_=True, lr_mult=dict(decode_head=10.0))
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
