# Real handwritten digits, 24 x 24 pixels: a ViT of 6 x 6 tokens learns them in about a minute on one CPU thread.
_base_ = "../_base_/runtime.py"

epochs, warmup = 40, 4

model = dict(
    type="TimmImageClassifier",
    model_name="none_vit_ti",
    img_size=24,
    patch_size=4,
    in_chans=1,
    num_classes=10,
    embed_dim=64,
    depth=4,
    num_heads=4,
    mlp_ratio=2,
    init_values=0,  # no LayerScale
    class_token=False,
    global_pool="avg",
    # Statistics of the training images, visionpe.data.digits.STATISTICS["digits"].
    data_preprocessor=dict(mean=[79.3], std=[91.0]),
    loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, num_classes=10),
)

affine = dict(
    type="torchvision/RandomAffine",
    degrees=10,
    translate=(0.1, 0.1),
    shear=5.7,  # atan(0.1), in degrees
    interpolation="bilinear",
    fill=0,
)
# Four ranges of one ratio, equally likely: near enough to a log-uniform scale from 0.5 to 2.
scales = [(0.5, 0.71), (0.71, 1.0), (1.0, 1.41), (1.41, 2.0)]
train_pipeline = [
    dict(type="RandomChoice", transforms=[[dict(**affine, scale=scale)] for scale in scales]),
    dict(type="PackInputs"),
]
test_pipeline = [dict(type="PackInputs")]

# Images are in memory and tiny: a worker process would cost more than it does.
loader = dict(num_workers=0, persistent_workers=False, collate_fn=dict(type="default_collate"))
train_dataloader = dict(
    **loader,
    batch_size=64,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="DigitsDataset", split="train", source="digits", pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader,
    batch_size=250,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="DigitsDataset", split="val", source="digits", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    **loader,
    batch_size=250,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="DigitsDataset", split="test", source="digits", pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type="Accuracy", topk=(1,))
auto_scale_lr = dict(base_batch_size=64)
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=warmup, end=epochs, convert_to_iter_based=True),
]

default_hooks = dict(
    logger=dict(interval=17),  # iterations in an epoch
    checkpoint=dict(interval=1),
)
