# detectron2's cascade: 1,000 proposals, anchors beyond the image too, no weights of stages; what the stages share gets
# the mean of their gradients. mmdet has a mask head for each stage, detectron2 one, at the first.
_base_ = ["mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py", "lsj100e.py"]
custom_imports = dict(
    imports=["visionpe.detection", "visionpe.detection.models.roi_extractor"], allow_failed_imports=False
)

norm = dict(type="LayerNorm2d", eps=1e-6)
bbox_head = dict(
    type="Shared4Conv1FCBBoxHead",
    in_channels=256,
    conv_out_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    num_classes=80,
    norm_cfg=norm,
    reg_class_agnostic=True,
    loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type="L1Loss", loss_weight=1.0),
)
coder = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4)
stds = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [1 / 30, 1 / 30, 1 / 15, 1 / 15])
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # square images of 1024 pixels, in testing as well
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="vitdet_b.mae_in1k",
        pretrained=True,
        img_size=1024,
        padding="tokens",  # as published, where windows do not divide the map
        out_indices=(11,),
        drop_path_rate=0.1,
    ),
    neck=dict(_delete_=True, type="SimpleFeaturePyramid", in_channels=768, out_channels=256, num_outs=5),
    rpn_head=dict(num_convs=2, loss_bbox=dict(_delete_=True, type="L1Loss", loss_weight=1.0)),
    roi_head=dict(
        stage_loss_weights=[1.0, 1.0, 1.0],
        bbox_roi_extractor=dict(type="ScaledGradientRoIExtractor", gradient_scale=1 / 3),
        mask_roi_extractor=dict(type="ScaledGradientRoIExtractor", gradient_scale=1 / 3),
        bbox_head=[dict(bbox_head, bbox_coder=dict(coder, target_stds=std)) for std in stds],
        mask_head=dict(norm_cfg=norm),
    ),
    train_cfg=dict(rpn=dict(allowed_border=-1), rpn_proposal=dict(max_per_img=1000)),
)
