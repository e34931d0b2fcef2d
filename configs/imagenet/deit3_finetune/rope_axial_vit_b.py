_base_ = "../_base_/deit3_finetune_b.py"

weights = "work_dirs/imagenet/deit3_400e/rope_axial_vit_b/model.safetensors"
model = dict(model_name="rope_axial_vit_b", pretrained_cfg_overlay=dict(file=weights))
