_base_ = "_base_.py"

model = dict(model_name="rope_golden_vit_ti")
