# A linear head on the frozen patch tokens of DINOv2's ViT-S, normed (https://arxiv.org/abs/2304.07193, section 7.4;
# dinov2_vits14_ade20k_linear_config.py beside the published heads): batch norm and one layer, AdamW 1e-3, decay 1e-4,
# 1,500 iterations of warm-up, then linearly to zero in 40,000, batch 8 x 2, crops of 512 pixels; in testing windows
# of 512 every 341. Images are padded to whole patches of 14, here below and right, there around them, and scaled as
# in mmseg's ADE20K, within 2048 x 512, where DINOv2 leaves the longer side free.
_base_ = [
    "mmseg::_base_/datasets/ade20k.py",
    "mmseg::_base_/default_runtime.py",
    "mmseg::_base_/schedules/schedule_40k.py",
]
custom_imports = dict(
    imports=["visionpe.detection", "visionpe.detection.models.linear_head"], allow_failed_imports=False
)
auto_scale_lr = dict(base_batch_size=16)

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type="TimmFeatures",
        model_name="dinov2_vit_s.lvd142m",
        pretrained=True,
        out_indices=(11,),
        final_norm=True,
        frozen_stages=12,
    ),
    decode_head=dict(
        type="LinearHead",
        in_channels=384,
        in_index=0,
        dropout_ratio=0.0,
        num_classes=150,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="TimmOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4),
    paramwise_cfg=dict(decay_mult={"*": 1.0}),  # biases and the norm decay too
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=40000),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
