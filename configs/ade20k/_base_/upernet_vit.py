# UPerNet on a plain ViT, with mmseg's settings for DeiT-B: levels from four blocks, AdamW 6e-5, decay 0.01, 160,000
# iterations at 512 pixels, batch 8 x 2. All encodings start from RoPE-ViT's weights, of one recipe.
_base_ = "mmseg::vit/vit_deit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py"
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="rope_vit_b.naver_in1k",
        pretrained=True,
        img_size=512,
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
    ),
)
# As published: biases decay, LayerScale, and batch norms of heads; norms of the backbone and positions do not.
optim_wrapper = dict(
    constructor="TimmOptimWrapperConstructor",
    paramwise_cfg=dict(_delete_=True, decay_mult={"*bias": 1.0, "*.gamma": 1.0, "*.bn.*": 1.0, "*norm*": 0.0}),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
