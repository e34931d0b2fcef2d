# DeiT's 300 epochs (https://arxiv.org/abs/2012.12877, table 9; facebookresearch/deit, main.py): batch 8 x 128 = 1024.
# Its moving average of weights stands beside the model that is reported, and is left out. Its rate moves once an epoch,
# here every iteration. The models have LayerScale, which DeiT's have not: they are those of deit3_400e.
_base_ = ["../../_base_/runtime.py", "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py", "vit.py"]

epochs, warmup = 300, 5

model = dict(
    loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    # One of the two for each batch, with even odds.
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
loader = dict(num_workers=10, persistent_workers=True, pin_memory=True, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    **loader,
    batch_size=128,
    drop_last=True,
    sampler=dict(_delete_=True, type="RepeatAugSampler", shuffle=True),
)
val_dataloader = dict(**loader, batch_size=128)
test_dataloader = dict(**loader, batch_size=128)

# Biases, norms and positions do not decay.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor", optimizer=dict(type="AdamW", lr=1e-3, eps=1e-8, weight_decay=0.05)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, end=warmup, convert_to_iter_based=True),
    # Over the whole run, whose first epochs the warm-up holds down.
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=0, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
