_base_ = "_base_.py"

model = dict(model_name="lape_vit_ti")
