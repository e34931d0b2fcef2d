_base_ = "../_base_/levit_1000e.py"

model = dict(model_name="attention_bias_levit_256")
