# Hiera-B as its authors train it on COCO (https://arxiv.org/abs/2306.00989, appendix A.2 and table 15), of which they
# publish no code: ViTDet's recipe with rate 3.5e-5, stochastic depth 0.2 and no layer decay, on MAE's weights; maps of
# all stages into an FPN, two convolutions for proposals, four for regions, each with a LayerNorm. What they do not say
# is ViTDet's: warm-up, cuts of the rate, what decays.
_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "_base_/lsj100e.py"]

norm = dict(type="LayerNorm2d", eps=1e-6)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # square images of 1024 pixels, in testing as well
    backbone=dict(
        _delete_=True, type="TimmFeatures", model_name="hiera_b.mae", pretrained=True, drop_path_rate=0.2, with_cp=True
    ),
    neck=dict(in_channels=[96, 192, 384, 768], norm_cfg=norm),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm),
        mask_head=dict(norm_cfg=norm),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=3.5e-5), paramwise_cfg=dict(layer_decay=None))
