_base_ = "_base_.py"

model = dict(model_name="lookhere_vit_ti")
