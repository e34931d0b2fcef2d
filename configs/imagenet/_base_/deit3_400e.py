# DeiT III (Touvron et al., "DeiT III: Revenge of the ViT", 2022, https://arxiv.org/abs/2204.07118) in the 400 epochs
# of RoPE-ViT (Heo et al., 2024, https://arxiv.org/abs/2403.13298; https://github.com/naver-ai/rope-vit, deit/README):
# LAMB, binary cross-entropy, 3-Augment, mixup and cutmix, repeated augmentation, batch 8 x 256 = 2048.
# Its moving average of weights stands beside the model that is reported, and is left out. Its rate moves once an epoch,
# here every iteration.
_base_ = ["../../_base_/runtime.py", "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py", "vit.py"]

epochs, warmup = 400, 5
img_size = 224

model = dict(
    img_size=img_size,
    constant_drop_path=True,  # one rate in every block
    # Every class that is in a mixed image counts in full.
    loss=dict(type="TimmBinaryCrossEntropy", smoothing=0.0, target_threshold=0.0),
    # One of the two for each batch, with even odds.
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)

# 3-Augment: one of grey, solarised or blurred, then colour jitter.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=img_size, backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandomChoice",
        transforms=[
            [dict(type="RandomGrayscale", prob=1.0, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989))],
            [dict(type="Solarize", thr=128, prob=1.0)],
            # A radius drawn uniformly from the range.
            [dict(type="GaussianBlur", magnitude_range=(0.1, 2.0), magnitude_std="inf", prob=1.0)],
        ],
    ),
    dict(type="ColorJitter", brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type="PackInputs"),
]
# Evaluation crop ratio 1.0.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=img_size, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=img_size),
    dict(type="PackInputs"),
]
loader = dict(num_workers=10, persistent_workers=True, pin_memory=True, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    **loader,
    batch_size=256,
    drop_last=True,
    sampler=dict(_delete_=True, type="RepeatAugSampler", shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(**loader, batch_size=256, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(**loader, batch_size=256, dataset=dict(pipeline=test_pipeline))

# LAMB clips the gradient to norm 1 itself, as the original's does. Biases, norms and positions do not decay.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor", optimizer=dict(type="Lamb", lr=4e-3, eps=1e-8, weight_decay=0.03)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=2.5e-4, by_epoch=True, end=warmup, convert_to_iter_based=True),
    # Over the whole run, whose first epochs the warm-up holds down.
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=0, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=2048)
