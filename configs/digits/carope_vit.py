_base_ = "_base_.py"

model = dict(model_name="carope_vit_ti")
