"""Slim Mask R-CNN on digit scenes: a ViT of 8 x 8 tokens learns them in two minutes on one CPU thread.

Scenes: `visionpe scenes`.
"""

_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/default_runtime.py",
    "schedule.py",
]
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

dim, width = 96, 64  # channels of the backbone and of the pyramid
model = dict(
    # Statistics of the training scenes. The coarsest level of the pyramid has stride 16.
    data_preprocessor=dict(mean=[68.0] * 3, std=[40.5] * 3, pad_size_divisor=16),
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="none_vit_ti",
        img_size=64,
        patch_size=8,
        embed_dim=dim,
        depth=4,
        num_heads=3,
        init_values=0,  # no LayerScale
        class_token=False,
        global_pool="",
        out_indices=(3,),
    ),
    neck=dict(
        _delete_=True,
        type="SimpleFeaturePyramid",
        in_channels=dim,
        out_channels=width,
        scales=(2, 1, 0.5),
        num_outs=3,
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[6], ratios=[1.0, 2.0], strides=[4, 8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, featmap_strides=[4, 8], finest_scale=40),
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=dict(out_channels=width, featmap_strides=[4, 8], finest_scale=40),
        mask_head=dict(in_channels=width, num_convs=2, conv_out_channels=width, num_classes=10),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale_factor=1.0),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
data_root = "data/digit_scenes/coco/"
metainfo = dict(
    classes=tuple("0123456789"),
    palette=[
        (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48),
        (145, 30, 180), (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212),
    ],
)  # fmt: skip
dataset = dict(data_root=data_root, metainfo=metainfo)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(batch_size=16, num_workers=1, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val2017.json")
test_evaluator = val_evaluator

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=50, max_keep_ckpts=2),
    visualization=dict(draw=False),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
