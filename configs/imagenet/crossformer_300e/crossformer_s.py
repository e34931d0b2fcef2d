_base_ = "../_base_/crossformer_300e.py"

model = dict(model_name="crossformer_s", drop_path_rate=0.2)
