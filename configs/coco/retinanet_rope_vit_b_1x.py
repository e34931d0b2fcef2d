_base_ = "_base_/retinanet_1x.py"

# Every block is global. All encodings start from RoPE-ViT's weights, of one recipe.
model = dict(
    backbone=dict(
        model_name="rope_vit_b.naver_in1k", pretrained=True, img_size=224, out_indices=(11,), drop_path_rate=0.1
    ),
    neck=dict(
        _delete_=True, type="SimpleFeaturePyramid", in_channels=768, out_channels=256, scales=(2, 1, 0.5), num_outs=5
    ),
)
# ViTDet's optimizer and its rule for what decays (https://arxiv.org/abs/2203.16527, appendix A.2).
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.1),
    paramwise_cfg=dict(
        _delete_=True,
        layer_decay=0.7,
        decay_mult={"*": 1.0, "backbone.*norm*": 0.0, "*.ape.*": 0.0, "*.freqs": 0.0},
    ),
)
