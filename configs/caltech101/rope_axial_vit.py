_base_ = "_base_.py"

model = dict(model_name="rope_axial_vit_ti")
