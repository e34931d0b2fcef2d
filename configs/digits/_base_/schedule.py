"""What detection and segmentation of digit scenes share: optimizer, schedule, hooks."""

iters, warmup = 350, 30

train_cfg = dict(type="IterBasedTrainLoop", max_iters=iters, val_interval=iters)
val_cfg = dict(type="ValLoop")
auto_scale_lr = dict(base_batch_size=16)
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=warmup, end=iters, T_max=iters - warmup),
]
# Broken off and resumed, a run ends as it would have.
custom_hooks = [dict(type="ResumableRandomnessHook")]
