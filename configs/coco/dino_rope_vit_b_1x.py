_base_ = "_base_/dino_vit_1x.py"

model = dict(backbone=dict(model_name="rope_vitdet_b.naver_in1k"))
