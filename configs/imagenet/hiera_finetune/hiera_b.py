_base_ = "../_base_/hiera_finetune.py"

epochs = 100

model = dict(model_name="hiera_b.mae")
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.7))
param_scheduler = _base_.param_scheduler  # mmengine puts the base here
param_scheduler[1].update(end=epochs)
train_cfg = dict(max_epochs=epochs)
