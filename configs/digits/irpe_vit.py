_base_ = "_base_.py"

model = dict(model_name="irpe_vit_ti")
