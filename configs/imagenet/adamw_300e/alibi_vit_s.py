_base_ = "../_base_/adamw_300e_s.py"

model = dict(model_name="alibi_vit_s")
