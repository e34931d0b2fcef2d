_base_ = "_base_.py"

model = dict(model_name="cpb_vit_ti")
