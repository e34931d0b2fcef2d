_base_ = "_base_.py"

model = dict(model_name="seqpe_vit_ti")
