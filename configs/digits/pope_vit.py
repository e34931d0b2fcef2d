_base_ = "_base_.py"

model = dict(model_name="pope_vit_ti")
