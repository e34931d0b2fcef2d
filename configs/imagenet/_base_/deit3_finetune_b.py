# 20 epochs at 224 pixels after the 400 at 192, batch 8 x 64 = 512 (RoPE-ViT, deit/README: ViT-B, fine-tuning): the rate
# is 1e-5 to the end, since the cosine of main.py ends at its lowest rate, which is 1e-5 too.
# Start from the weights that deit3_400e left in its work directory, or from others:
# --cfg-options model.pretrained_cfg_overlay.file=FILE; timm's loader resizes position tables.
_base_ = ["../../_base_/runtime.py", "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py", "vit.py"]

epochs, warmup = 20, 5

model = dict(
    model_name="none_vit_b",
    drop_path_rate=0.2,
    constant_drop_path=True,  # one rate in every block
    loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
    pretrained=True,
)

mean_bgr = [103.53, 116.28, 123.675]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=224, backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(x) for x in mean_bgr], interpolation="bicubic"),
    ),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=224, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
loader = dict(num_workers=10, persistent_workers=True, pin_memory=True, collate_fn=dict(type="default_collate"))
train_dataloader = dict(**loader, batch_size=64, drop_last=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**loader, batch_size=256, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(**loader, batch_size=256, dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor", optimizer=dict(type="AdamW", lr=1e-5, eps=1e-8, weight_decay=0.1)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=True, end=warmup, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=512)
