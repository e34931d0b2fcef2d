_base_ = "../_base_/mit_300e.py"

model = dict(model_name="mit_b2")
