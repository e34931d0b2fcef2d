_base_ = "_base_.py"

model = dict(model_name="none_vit_ti")
