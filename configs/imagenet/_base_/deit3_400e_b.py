# Size B is trained at 192 pixels, then fine-tuned at 224 (configs/imagenet/deit3_finetune).
_base_ = "deit3_400e.py"

img_size = 192
model = dict(model_name="none_vit_b", img_size=img_size, drop_path_rate=0.1)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = _base_.param_scheduler  # mmengine puts the base here
param_scheduler[0].update(start_factor=1e-6 / 3e-3)

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=img_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=img_size)
test_pipeline[2].update(crop_size=img_size)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
