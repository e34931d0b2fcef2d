# 3,600 MNIST digits instead, half the epochs: 56 iterations each.
_base_ = "../digits/_base_.py"

epochs, warmup = 20, 2
model = dict(data_preprocessor=dict(mean=[45.4], std=[88.6]))  # visionpe.data.digits.STATISTICS["mnist"]
train_dataloader = dict(dataset=dict(source="mnist"))
val_dataloader = dict(dataset=dict(source="mnist"))
test_dataloader = dict(dataset=dict(source="mnist"))
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=warmup, end=epochs, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=56))
