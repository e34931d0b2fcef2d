_base_ = "_base_.py"

model = dict(model_name="xl_vit_ti")
