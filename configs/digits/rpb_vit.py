_base_ = "_base_.py"

model = dict(model_name="rpb_vit_ti")
