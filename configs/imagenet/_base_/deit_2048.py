# DeiT's 300 epochs with batch 8 x 256 = 2048, for which its rule gives the rate 2e-3.
_base_ = "adamw_300e.py"

train_dataloader = dict(batch_size=256)
val_dataloader = dict(batch_size=256)
test_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = _base_.param_scheduler  # mmengine puts the base here
param_scheduler[0].update(start_factor=5e-4)
auto_scale_lr = dict(base_batch_size=2048)
