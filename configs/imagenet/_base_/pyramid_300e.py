# What the 300 epochs of Swin and CSWin share: each image once an epoch, twenty epochs of warm-up.
_base_ = "adamw_300e.py"

warmup = 20

train_dataloader = dict(sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=warmup, end=300, convert_to_iter_based=True),
]
