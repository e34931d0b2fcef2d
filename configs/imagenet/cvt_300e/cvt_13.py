_base_ = "../_base_/cvt_300e.py"

model = dict(model_name="cvt_13")
