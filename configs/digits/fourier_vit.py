_base_ = "_base_.py"

model = dict(model_name="fourier_vit_ti")
