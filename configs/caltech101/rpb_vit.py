_base_ = "_base_.py"

# With a gain of one the table has hardly moved when so short a training ends.
model = dict(model_name="rpb_vit_ti", pos_encoding=dict(name="rpb", gain=10.0))
