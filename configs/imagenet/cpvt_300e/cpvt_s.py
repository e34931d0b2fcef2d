_base_ = "../_base_/cpvt_300e.py"

model = dict(model_name="cpvt_s")
