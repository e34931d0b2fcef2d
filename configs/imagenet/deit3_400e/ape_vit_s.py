_base_ = "../_base_/deit3_400e_s.py"

model = dict(model_name="ape_vit_s")
