_base_ = "_base_/mask_rcnn.py"

model = dict(backbone=dict(model_name="ape_vit_ti"))
