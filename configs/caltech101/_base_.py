# Natural images of 101 classes, 48 x 48 pixels: a ViT of 6 x 6 tokens, four minutes on one CPU thread.
_base_ = "../elpv/_base_.py"

epochs, warmup = 20, 2

model = dict(
    img_size=48,
    patch_size=8,
    in_chans=3,
    num_classes=101,
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),  # of ImageNet
    loss=dict(num_classes=101),
)

train_pipeline = [
    dict(type="torchvision/RandomResizedCrop", size=48, scale=(0.35, 1.0), interpolation="bicubic"),
    dict(type="torchvision/RandomHorizontalFlip"),
    dict(type="torchvision/ColorJitter", brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="torchvision/Resize", size=48, interpolation="bicubic"),
    dict(type="torchvision/CenterCrop", size=48),
    dict(type="PackInputs"),
]

# Downloaded to data/caltech101 where it is not there, see docs/data.md.
images = dict(_delete_=True, type="PhotographsDataset", name="caltech101", short_side=72)
train_dataloader = dict(dataset=dict(**images, split="train", pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**images, split="val", pipeline=test_pipeline, test_mode=True))
test_dataloader = dict(dataset=dict(**images, split="test", pipeline=test_pipeline, test_mode=True))

train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=warmup, end=epochs, convert_to_iter_based=True),
]

default_hooks = dict(logger=dict(interval=40))
