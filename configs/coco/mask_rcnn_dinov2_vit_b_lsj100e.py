# ViTDet's recipe on DINOv2's ViT-B, without windows. Patches are of 16 pixels, to which timm resizes the projection of
# those of 14, so that levels have the strides of anchors; the position table stays that of 37 x 37 patches, and is
# resized to the image as DINOv2 does it. DINOv2 publishes no detector (https://arxiv.org/abs/2304.07193).
_base_ = "_base_/mask_rcnn_vitdet.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="dinov2_vit_b.lvd142m",
        pretrained=True,
        patch_size=16,
        img_size=37 * 16,
        out_indices=(11,),
        drop_path_rate=0.1,
        with_cp=True,
    ),
)
