_base_ = "_base_.py"

model = dict(model_name="string_vit_ti")
