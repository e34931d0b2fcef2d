_base_ = "_base_.py"

model = dict(model_name="decomposed_vit_ti")
