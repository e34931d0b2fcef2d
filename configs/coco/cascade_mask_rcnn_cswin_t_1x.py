_base_ = ["_base_/cascade_mask_rcnn.py", "_base_/adamw_1x.py"]

model = dict(backbone=dict(model_name="cswin_t", pretrained=True), neck=dict(in_channels=[64, 128, 256, 512]))
