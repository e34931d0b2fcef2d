_base_ = "cascade_mask_rcnn_cswin_t_3x.py"

weights = "work_dirs/imagenet/cswin_300e/rope_cswin_t/model.safetensors"
model = dict(
    backbone=dict(model_name="rope_cswin_t", pretrained=False, init_cfg=dict(type="Pretrained", checkpoint=weights))
)
