# Swin's recipe (https://arxiv.org/abs/2103.14030, section 4.1 and appendix A2.1; microsoft/Swin-Transformer,
# config.py), which RoPE-Swin keeps (https://arxiv.org/abs/2403.13298, section 4.1). Stochastic depth: 0.2, 0.3, 0.5 for
# T, S, B.
_base_ = "pyramid_300e.py"

model = dict(model_name="swin_t", drop_path_rate=0.2)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
