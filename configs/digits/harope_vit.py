_base_ = "_base_.py"

model = dict(model_name="harope_vit_ti")
