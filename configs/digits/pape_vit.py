_base_ = "_base_.py"

model = dict(model_name="pape_vit_ti")
