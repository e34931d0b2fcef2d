_base_ = "_base_.py"

model = dict(model_name="liere_vit_ti")
