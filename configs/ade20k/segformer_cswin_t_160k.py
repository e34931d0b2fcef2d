# SegFormer's head and schedule (https://arxiv.org/abs/2105.15203, section 4.1; NVlabs/SegFormer, local_configs/B1) on
# CSWin: AdamW 6e-5, ten times that in the head, decay 0.01, linearly to zero in 160,000 iterations at 512 pixels.
_base_ = "mmseg::segformer/segformer_mit-b1_8xb2-160k_ade20k-512x512.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)
auto_scale_lr = dict(base_batch_size=16)

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="cswin_t",
        pretrained=True,
        fresh_norms=True,
        padding="values",
        drop_path_rate=0.1,
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
# As published: biases decay, and the batch norm of the head; norms of the backbone and positions do not, but for that
# of the stem of CSWin, which by its published name is none.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    paramwise_cfg=dict(
        _delete_=True,
        lr_mult=dict(decode_head=10.0),
        decay_mult={"*bias": 1.0, "*.bn.*": 1.0, "*norm*": 0.0, "*.patch_embed.norm.*": 1.0},
    ),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
