_base_ = "../_base_/deit3_400e_s.py"

model = dict(model_name="sincos_vit_s")
