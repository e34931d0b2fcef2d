# No recipe is published: this is that of UPerNet on Swin, whose recipe MViTv2 follows for detectors
# (https://arxiv.org/abs/2112.01526, appendix B.3), with the stochastic depth of its detector.
_base_ = "_base_/upernet.py"

model = dict(backbone=dict(model_name="mvitv2_t", pretrained=True, drop_path_rate=0.2))
