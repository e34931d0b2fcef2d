_base_ = "_base_/dino_1x.py"

# Stochastic depth as in mmdet's DINO on Swin; norms of the features start anew, as there.
model = dict(
    backbone=dict(
        model_name="cswin_t",
        pretrained=True,
        fresh_norms=True,
        padding="values",
        out_indices=(1, 2, 3),
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[128, 256, 512]),
)
