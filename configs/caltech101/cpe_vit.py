_base_ = "_base_.py"

model = dict(model_name="cpe_vit_ti")
