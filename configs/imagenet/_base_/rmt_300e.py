# RMT's recipe (https://arxiv.org/abs/2309.11523, section 4.1; qhfan/RMT, classfication_release/main.py): DeiT's, with
# batch 2048 and rate 2e-3 as its logs have them. The moving average of weights stands beside the model that
# is reported, and is left out. Stochastic depth: 0.1, 0.15, 0.4, 0.5 for T, S, B, L.
_base_ = "deit_2048.py"

model = dict(model_name="rmt_t", drop_path_rate=0.1)
