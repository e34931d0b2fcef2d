_base_ = "../_base_/hiera_finetune.py"

model = dict(model_name="hiera_t.mae")
