# MViTv2's recipe (https://arxiv.org/abs/2112.01526, appendix B.2; facebookresearch/mvit, configs/MVITv2_T.yaml and
# mvit/config/defaults.py): batch 2048, 70 epochs of warm-up, six operations of RandAugment for each image, gradients
# clipped at norm 1. Rates are scaled with the eight machines of the paper. Tables of offsets decay.
# Stochastic depth: 0.1, 0.1, 0.3, 0.5 for T, S, B, L; weight decay 0.1 for L.
_base_ = "pyramid_300e.py"

warmup = 70

model = dict(model_name="mvitv2_t", drop_path_rate=0.1)
train_pipeline = _base_.train_pipeline  # mmengine puts the base here
train_pipeline[3].update(num_policies=6)
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=256)
test_dataloader = dict(batch_size=256)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=1.0), paramwise_cfg=dict(decay_mult={"*.pos_encoding.*table": 1.0})
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=8e-8 / 2e-3, end=warmup)
param_scheduler[1].update(eta_min=8e-6, begin=warmup)
auto_scale_lr = dict(base_batch_size=2048)
