# Stochastic depth of Swin-T: 0.1 for 12 epochs, 0.2 for 36. Norms of the features start anew, as published.
# Where windows do not divide the map, what is beyond it is masked; the original attends to zero tokens there.
_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"

model = dict(
    backbone=dict(_delete_=True, type="TimmFeatures", model_name="swin_t", feature_norms=True, fresh_norms=True),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
