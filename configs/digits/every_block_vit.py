_base_ = "_base_.py"

model = dict(model_name="every_block_vit_ti")
