_base_ = "../_base_/deit3_400e_b.py"

model = dict(model_name="alibi_vit_b")
