_base_ = "cascade_mask_rcnn_swin_t_1x.py"

# RoPE-Swin's own weights, from the same 300 epochs as Swin's.
model = dict(backbone=dict(model_name="rope_swin_t.naver_in1k"))
