_base_ = ["_base_/cascade_mask_rcnn.py", "_base_/adamw_1x.py"]

model = dict(backbone=dict(model_name="swin_t", pretrained=True, drop_path_rate=0.0))
