_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "lsj100e.py"]

norm = dict(type="LayerNorm2d", eps=1e-6)
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
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm),
        mask_head=dict(norm_cfg=norm),
    ),
)
