_base_ = "mask_rcnn_swin_t_3x.py"

weights = "work_dirs/imagenet/swin_300e/rope_swin_t/model.safetensors"
model = dict(
    backbone=dict(model_name="rope_swin_t", pretrained=False, init_cfg=dict(type="Pretrained", checkpoint=weights))
)
