# A light RetinaNet on frozen patch tokens of a ViT-S/14: blood cells, 640 x 480 at half their size, half an hour on one
# CPU thread. Many red cells carry no box, so AP has a ceiling. BCCD as COCO json, in data/bccd, see docs/data.md.
_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py", "mmdet::_base_/default_runtime.py"]
custom_imports = dict(imports=["visionpe.detection"], allow_failed_imports=False)

epochs, width, scale = 12, 96, (336, 252)

model = dict(
    data_preprocessor=dict(pad_size_divisor=28),
    backbone=dict(
        _delete_=True,
        type="TimmFeatures",
        model_name="dinov2_vit_s.lvd142m",
        pretrained=True,
        out_indices=(11,),
        final_norm=True,
        frozen_stages=12,
    ),
    neck=dict(
        _delete_=True,
        type="SimpleFeaturePyramid",
        in_channels=384,
        out_channels=width,
        scales=(2, 1, 0.5),
        num_outs=3,
    ),
    bbox_head=dict(
        num_classes=3,
        in_channels=width,
        feat_channels=width,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=3, scales_per_octave=3, ratios=[0.8, 1.25], strides=[7, 14, 28]),
    ),
    test_cfg=dict(nms_pre=500, max_per_img=60),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="RandomFlip", prob=0.5, direction=["horizontal", "vertical"]),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
metainfo = dict(
    classes=("RBC", "WBC", "Platelets"),
    palette=[(220, 20, 60), (0, 0, 142), (250, 170, 30)],
)
dataset = dict(type="CocoDataset", data_root="data/bccd/", metainfo=metainfo)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(**dataset, ann_file="train.json", data_prefix=dict(img="train/"), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, ann_file="val.json", data_prefix=dict(img="val/"), pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file="data/bccd/val.json", metric="bbox")
test_evaluator = val_evaluator

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, T_max=epochs, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
randomness = dict(seed=0)
