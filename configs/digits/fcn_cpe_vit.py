_base_ = "_base_/fcn.py"

model = dict(backbone=dict(model_name="cpe_vit_ti"))
