_base_ = "_base_.py"

model = dict(model_name="ape_vit_ti")
