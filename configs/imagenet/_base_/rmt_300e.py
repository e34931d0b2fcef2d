# RMT's recipe (https://arxiv.org/abs/2309.11523, section 4.1; qhfan/RMT, classfication_release/main.py): DeiT's, with
# batch 8 x 256 = 2048 and rate 2e-3 as its logs have them. The moving average of weights stands beside the model that
# is reported, and is left out. Stochastic depth: 0.1, 0.15, 0.4, 0.5 for T, S, B, L.
_base_ = "adamw_300e.py"

model = dict(model_name="rmt_t", drop_path_rate=0.1)
train_dataloader = dict(batch_size=256)
val_dataloader = dict(batch_size=256)
test_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = _base_.param_scheduler  # mmengine puts the base here
param_scheduler[0].update(start_factor=5e-4)
auto_scale_lr = dict(base_batch_size=2048)
