_base_ = "_base_/dino_1x.py"

model = dict(
    backbone=dict(model_name="rope_vit_b", pretrained=True, img_size=224, out_indices=(11,), drop_path_rate=0.1),
    neck=dict(
        _delete_=True, type="SimpleFeaturePyramid", in_channels=768, out_channels=256, scales=(2, 1, 0.5), num_outs=4
    ),
)
