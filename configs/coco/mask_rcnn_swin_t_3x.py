_base_ = ["_base_/mask_rcnn.py", "_base_/adamw_3x.py"]

model = dict(backbone=dict(model_name="swin_t", pretrained=True, drop_path_rate=0.2))
