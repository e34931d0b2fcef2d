_base_ = "../_base_/adamw_300e_s.py"

model = dict(model_name="rope_axial_vit_s")
