_base_ = "../_base_/cswin_300e.py"

model = dict(model_name="rope_cswin_t")
