_base_ = "_base_.py"

model = dict(model_name="rope_vjepa_vit_ti")
