# UPerNet as on our other plain ViTs, on DINOv3's ViT-B, all of it trained. DINOv3 publishes a linear head and a
# Mask2Former with an adapter of deformable attention on a frozen 7B model instead (https://arxiv.org/abs/2508.10104).
_base_ = "_base_/upernet_vit.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="dinov3_vit_b.lvd1689m",
        pretrained=True,
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
    ),
)
