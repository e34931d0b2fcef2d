# Twins' recipe (https://arxiv.org/abs/2104.13840, section 4.1; Meituan-AutoML/Twins, main.py): DeiT's, but each image
# once an epoch, no average of weights, and gradients clipped at norm 5. Convolutions that tell positions do not decay.
# Stochastic depth: 0.2, 0.3, 0.5 for S, B, L.
_base_ = "adamw_300e.py"

model = dict(model_name="twins_svt_s", drop_path_rate=0.2)
train_dataloader = dict(sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True))
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
