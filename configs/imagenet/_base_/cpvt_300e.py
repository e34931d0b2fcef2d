# CPVT's recipe (https://arxiv.org/abs/2102.10882, section 4.1): batch 2048, all else as DeiT, without LayerScale. Its
# authors publish no code of it; CPVT v2 is Twins-PCPVT (configs/imagenet/twins_300e).
_base_ = "deit_2048.py"

model = dict(model_name="cpvt_s", drop_path_rate=0.1, init_values=0.0)
