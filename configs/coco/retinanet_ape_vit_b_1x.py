_base_ = "retinanet_rope_vit_b_1x.py"

model = dict(backbone=dict(model_name="ape_vit_b.naver_in1k"))
