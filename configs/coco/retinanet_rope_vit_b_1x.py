_base_ = "_base_/retinanet_1x.py"

model = dict(
    backbone=dict(model_name="rope_vit_b", pretrained=True, img_size=224, out_indices=(11,), drop_path_rate=0.1),
    neck=dict(
        _delete_=True, type="SimpleFeaturePyramid", in_channels=768, out_channels=256, scales=(2, 1, 0.5), num_outs=5
    ),
)
# ViTDet's optimizer (https://arxiv.org/abs/2203.16527, appendix A.2).
optim_wrapper = dict(optimizer=dict(weight_decay=0.1), paramwise_cfg=dict(layer_decay=0.7))
