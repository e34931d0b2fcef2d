_base_ = "../_base_/swin_300e.py"

model = dict(model_name="swin_t")
