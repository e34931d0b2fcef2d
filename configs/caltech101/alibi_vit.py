_base_ = "_base_.py"

model = dict(model_name="alibi_vit_ti")
