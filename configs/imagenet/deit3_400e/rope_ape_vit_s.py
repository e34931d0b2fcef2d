_base_ = "../_base_/deit3_400e_s.py"

model = dict(model_name="rope_vit_s", pos_encoding="rope_mixed+ape")
