_base_ = "_base_.py"

model = dict(model_name="fire_vit_ti")
