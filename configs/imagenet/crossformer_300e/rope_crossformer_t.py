_base_ = "../_base_/crossformer_300e.py"

model = dict(model_name="rope_crossformer_t")
