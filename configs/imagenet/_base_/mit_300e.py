# MiT's recipe: SegFormer (https://arxiv.org/abs/2105.15203, section 4.1) says only that its encoder is pre-trained on
# ImageNet-1K; its author that this is done as in PVT v2 (NVlabs/SegFormer, issues 39, 67 and 97), which is DeiT's
# (whai362/PVT, branch v2, classification/main.py), without an average of weights.
_base_ = "adamw_300e.py"

model = dict(model_name="mit_b2", drop_path_rate=0.1)
