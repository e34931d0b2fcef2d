_base_ = "_base_.py"

model = dict(model_name="rope_norm_vit_ti")
