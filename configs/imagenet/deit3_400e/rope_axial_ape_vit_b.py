_base_ = "../_base_/deit3_400e_b.py"

model = dict(model_name="rope_axial_vit_b", pos_encoding="rope_axial+ape")
