_base_ = "_base_.py"

model = dict(model_name="sincos_vit_ti")
