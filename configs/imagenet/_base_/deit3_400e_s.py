_base_ = "deit3_400e.py"
model = dict(model_name="none_vit_s", drop_path_rate=0.0)
