_base_ = "adamw_300e.py"
model = dict(model_name="none_vit_s", drop_path_rate=0.1)
