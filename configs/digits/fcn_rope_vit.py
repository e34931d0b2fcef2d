_base_ = "_base_/fcn.py"

model = dict(backbone=dict(model_name="rope_vit_ti"))
