_base_ = "../_base_/adamw_300e_b.py"

model = dict(model_name="ape_vit_b")
