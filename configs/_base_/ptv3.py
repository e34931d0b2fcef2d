"""Point Transformer V3 as published (https://arxiv.org/abs/2312.10035): model, losses, optimizer, rates.

Batch 12 on four GPUs, mixed precision: torchrun --nproc-per-node 4 -m visionpe train FILE --launcher pytorch --amp
"""

_base_ = "clouds.py"

epochs = 100
warm = 5  # of them

model = dict(
    type="CloudSegmentor",
    model_name="ptv3_b_unet",
    in_chans=6,  # colour and normal
    drop_path_rate=0.3,
    lovasz=1.0,
    votes="softmax",
    data_preprocessor=dict(type="CloudPreprocessor", mix=0.8),
)
optim_wrapper = dict(
    type="OptimWrapper",
    # The first moment moves too, see below.
    optimizer=dict(type="AdamW", lr=6e-3, weight_decay=0.05, betas=(0.95, 0.999)),
    # Published for every name with "block"; here what blocks are told of positions stands in pos_encoding.
    paramwise_cfg=dict(custom_keys=dict(blocks=dict(lr_mult=0.1), pos_encoding=dict(lr_mult=0.1))),
)
param_scheduler = [
    dict(
        type="GroupOneCycleLR",
        total_steps=epochs,
        pct_start=warm / epochs,
        div_factor=10.0,
        final_div_factor=1000.0,
        convert_to_iter_based=True,
    ),
    # PyTorch's OneCycleLR, which is published, turns this the other way by default.
    dict(type="CosineAnnealingMomentum", eta_min=0.85, begin=0, end=warm, convert_to_iter_based=True),
    dict(type="CosineAnnealingMomentum", eta_min=0.95, begin=warm, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=1)
auto_scale_lr = dict(base_batch_size=12)
sync_bn = None
