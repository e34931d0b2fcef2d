model = dict(
    type="TimmImageClassifier",
    model_name="none_vit_s",
    img_size=224,
    num_classes=1000,
    data_preprocessor=dict(
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,  # mmcv reads BGR
    ),
)
