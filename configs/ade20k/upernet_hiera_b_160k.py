# No recipe is published: Hiera (https://arxiv.org/abs/2306.00989) is not measured on ADE20K. This is that of UPerNet on
# Swin, on weights that were fine-tuned on ImageNet as Swin's are, with the stochastic depth of Hiera's detector.
_base_ = "_base_/upernet.py"

model = dict(backbone=dict(model_name="hiera_b.mae_in1k_ft_in1k", pretrained=True, drop_path_rate=0.2))
