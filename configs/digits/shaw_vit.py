_base_ = "_base_.py"

model = dict(model_name="shaw_vit_ti")
