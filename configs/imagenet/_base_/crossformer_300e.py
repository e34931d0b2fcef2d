# CrossFormer's recipe (https://arxiv.org/abs/2108.00154, section 4.1; cheerss/CrossFormer, config.py and main.py),
# which is Swin's but that networks on offsets decay. Stochastic depth: 0.1, 0.2, 0.3, 0.5 for T, S, B, L.
_base_ = "swin_300e.py"

model = dict(model_name="crossformer_t", drop_path_rate=0.1)
# Of the networks all but the biases and the norms, their second, fifth and eighth layer.
optim_wrapper = dict(paramwise_cfg=dict(decay_mult={"*.dpb.mlp.*weight": 1.0, "*.dpb.mlp.*.[147].weight": 0.0}))
