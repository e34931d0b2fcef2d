# Solar cells, 48 x 48 pixels of 300 x 300: a ViT of 6 x 6 tokens tells damaged ones, in minutes on one CPU thread.
_base_ = "../_base_/runtime.py"

epochs, warmup = 60, 5

model = dict(
    type="TimmImageClassifier",
    model_name="none_vit_ti",
    img_size=48,
    patch_size=8,
    in_chans=1,
    num_classes=2,
    embed_dim=96,
    depth=6,
    num_heads=4,
    mlp_ratio=2,
    init_values=0,  # no LayerScale
    class_token=False,
    global_pool="avg",
    # Statistics of the training images, visionpe.data.elpv.STATISTICS.
    data_preprocessor=dict(mean=[153.0], std=[39.5]),
    loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, num_classes=2),
)

# A cell fills its photograph: it is turned and mirrored, and a little shifted and scaled.
train_pipeline = [
    dict(type="torchvision/RandomResizedCrop", size=48, scale=(0.7, 1.0), ratio=(0.9, 1.1), interpolation="bicubic"),
    dict(type="torchvision/RandomHorizontalFlip"),
    dict(type="torchvision/RandomVerticalFlip"),
    dict(type="torchvision/ColorJitter", brightness=0.2, contrast=0.2),
    dict(type="PackInputs"),
]
test_pipeline = [dict(type="torchvision/Resize", size=(48, 48), interpolation="bicubic"), dict(type="PackInputs")]

# Images are kept in memory: a worker process would cost more than it does.
loader = dict(num_workers=0, persistent_workers=False, collate_fn=dict(type="default_collate"))
images = dict(type="PhotographsDataset", name="elpv", short_side=150, mode="L")
train_dataloader = dict(
    **loader,
    batch_size=64,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(**images, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader,
    batch_size=150,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**images, split="val", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    **loader,
    batch_size=150,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**images, split="test", pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type="Accuracy", topk=(1,))
auto_scale_lr = dict(base_batch_size=64)
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=warmup, end=epochs, convert_to_iter_based=True),
]

default_hooks = dict(
    logger=dict(interval=26),  # iterations in an epoch
    checkpoint=dict(interval=1),
)
