_base_ = "../_base_/twins_300e.py"

model = dict(model_name="twins_pcpvt_s")
