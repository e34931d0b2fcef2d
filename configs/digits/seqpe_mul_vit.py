_base_ = "_base_.py"

# Position times queries and keys, as published beside the sum.
model = dict(model_name="seqpe_vit_ti", pos_encoding=dict(name="seqpe", site="qk_mul"))
