_base_ = "_base_.py"

model = dict(model_name="lepe_vit_ti")
