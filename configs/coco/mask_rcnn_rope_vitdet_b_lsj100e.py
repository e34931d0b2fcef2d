_base_ = "mask_rcnn_vitdet_b_lsj100e.py"

# RoPE-Mixed in place of relative tables, over MAE's own absolute positions.
model = dict(backbone=dict(pos_encoding="rope_mixed+ape"))
