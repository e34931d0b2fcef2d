_base_ = "_base_.py"

model = dict(model_name="tape_vit_ti")
