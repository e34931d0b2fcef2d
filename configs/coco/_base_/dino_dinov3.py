# DINO's head and schedule for 12 epochs (dino_1x.py) on DINOv3's ViT-B, which has no windows: all else as on our other
# plain ViTs. DINOv3 itself publishes another detector, Plain-DETR on a frozen 7B model, trained on Objects365 first
# (https://arxiv.org/abs/2508.10104). With 4,096 tokens in every block, with_cp saves memory.
_base_ = ["dino_vit_1x.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="dinov3_vit_b.lvd1689m",
        pretrained=True,
        out_indices=(11,),
        drop_path_rate=0.1,
        with_cp=True,
    ),
)
