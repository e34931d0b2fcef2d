_base_ = "_base_.py"

model = dict(model_name="rope_mrope_vit_ti")
