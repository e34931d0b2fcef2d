# The heads of Swin's Cascade Mask R-CNN: four convolutions and one linear layer, GIoU on decoded boxes. Stochastic
# depth of Swin-T: none for 12 epochs, 0.2 for 36. Norms of the features start anew, as published.
# Where windows do not divide the map, what is beyond it is masked; the original attends to zero tokens there.
_base_ = "mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py"

bbox_head = dict(
    type="Shared4Conv1FCBBoxHead",
    in_channels=256,
    conv_out_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    num_classes=80,
    norm_cfg=dict(type="SyncBN", requires_grad=True),
    reg_class_agnostic=False,
    reg_decoded_bbox=True,
    loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
)
coder = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4)
stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
model = dict(
    backbone=dict(_delete_=True, type="TimmFeatures", model_name="swin_t", feature_norms=True, fresh_norms=True),
    neck=dict(in_channels=[96, 192, 384, 768]),
    roi_head=dict(bbox_head=[dict(bbox_head, bbox_coder=dict(coder, target_stds=std)) for std in stds]),
)
