_base_ = "../_base_/mvitv2_300e.py"

model = dict(model_name="mvitv2_s")
