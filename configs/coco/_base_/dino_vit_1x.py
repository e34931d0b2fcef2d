# DINO on a plain ViT as in detrex (projects/dino, ViTDet's backbone as first published, p2 to p6; the later config with
# four scales leaves out p2): windows of 14 tokens but for the global blocks 2, 5, 8 and 11, ViTDet's pyramid, squares
# of 1024 pixels by the large-scale jitter of detrex's other DINO on a plain ViT (projects/dino_eva). All encodings
# start from RoPE-ViT's weights, of one recipe, where detrex starts from MAE. Its 1 x 1 convolutions between pyramid and
# encoder are left out: the levels are as wide as the encoder, and normed.
_base_ = ["dino_1x.py", "lsj.py"]

levels = 5
model = dict(
    num_feature_levels=levels,
    data_preprocessor=dict(pad_size_divisor=1024),  # in testing as well
    backbone=dict(
        model_name="rope_vitdet_b.naver_in1k",
        pretrained=True,
        img_size=1024,
        padding="tokens",
        init_values=1e-4,
        out_indices=(11,),
        drop_path_rate=0.1,
    ),
    neck=dict(_delete_=True, type="SimpleFeaturePyramid", in_channels=768, out_channels=256, num_outs=levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=levels))),
)
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=True), pipeline=_base_.lsj_train))
val_dataloader = dict(dataset=dict(pipeline=_base_.lsj_test))
test_dataloader = dict(dataset=dict(pipeline=_base_.lsj_test))
# The pyramid is part of detrex's backbone. There, norms do not decay, but for those of the pyramid.
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(neck=0.1), decay_mult={"*norm*": 0.0}))
