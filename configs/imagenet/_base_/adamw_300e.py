# 300 epochs of AdamW as in DeiT (https://arxiv.org/abs/2012.12877) and Swin (https://arxiv.org/abs/2103.14030):
# mmpretrain's data and schedule for Swin, batch 8 x 128 = 1024.
_base_ = [
    "../../_base_/runtime.py",
    "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py",
    "mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py",
    "vit.py",
]

model = dict(
    loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
loader = dict(num_workers=10, persistent_workers=True, pin_memory=True, collate_fn=dict(type="default_collate"))
train_dataloader = dict(**loader, batch_size=128, drop_last=True)
val_dataloader = dict(**loader, batch_size=128)
test_dataloader = dict(**loader, batch_size=128)
# Position parameters have other names than Swin's: timm's no_weight_decay() knows them.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor", paramwise_cfg=dict(_delete_=True), clip_grad=dict(max_norm=5.0)
)
