_base_ = "../_base_/rmt_300e.py"

model = dict(model_name="rmt_t")
