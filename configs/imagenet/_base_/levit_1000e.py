# LeViT's recipe (https://arxiv.org/abs/2104.01136, section 5.2; facebookresearch/LeViT, main.py): DeiT's for 1,000
# epochs with batch 2048, weight decay 0.025 and gradients clipped by the norms of the weights. Its teacher, a
# RegNetY-160 whose labels are half of the loss, is left out: mmpretrain teaches no classifier by another, and both
# classifiers learn from the labels. Stochastic depth: 0.1 for 384, none for the smaller ones.
_base_ = "deit_2048.py"

epochs = 1000

model = dict(model_name="attention_bias_levit_256", drop_path_rate=0.0)
optim_wrapper = dict(optimizer=dict(weight_decay=0.025))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=epochs)
train_cfg = dict(max_epochs=epochs)
custom_hooks = [dict(type="ExportHook"), dict(type="AdaptiveClipHook", factor=0.01)]
