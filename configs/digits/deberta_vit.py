_base_ = "_base_.py"

model = dict(model_name="deberta_vit_ti")
