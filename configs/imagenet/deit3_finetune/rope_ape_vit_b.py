_base_ = "../_base_/deit3_finetune_b.py"

weights = "work_dirs/imagenet/deit3_400e/rope_ape_vit_b/model.safetensors"
model = dict(model_name="rope_vit_b", pos_encoding="rope_mixed+ape", pretrained_cfg_overlay=dict(file=weights))
