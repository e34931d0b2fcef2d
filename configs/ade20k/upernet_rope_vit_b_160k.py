_base_ = "_base_/upernet_vit.py"

model = dict(backbone=dict(model_name="rope_vit_b.naver_in1k"))
