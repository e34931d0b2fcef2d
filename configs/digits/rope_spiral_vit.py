_base_ = "_base_.py"

model = dict(model_name="rope_spiral_vit_ti")
