# CSWin's recipe (https://arxiv.org/abs/2107.00652, section 4.1) with the numbers of the authors' command for T and of
# their main.py: batch 8 x 256 = 2048, rate 2e-3 from 1e-6, stochastic depth 0.2, no clipping; what is reported is the
# moving average of the weights. Not taken over: ten more epochs at the lowest rate, after the paper's 300. Their rate
# moves once an epoch; RandAugment there draws the interpolation for each operation, here for each image.
_base_ = "pyramid_300e.py"

model = dict(model_name="cswin_t", drop_path_rate=0.2)

interpolations = ("bilinear", "bicubic")
crop = dict(type="RandomResizedCrop", scale=224, backend="pillow")
augment = dict(
    type="RandAugment",
    policies="timm_increasing",
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
)
fill = [round(x) for x in _base_.bgr_mean]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomChoice", transforms=[[dict(crop, interpolation=each)] for each in interpolations]),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandomChoice",
        transforms=[[dict(augment, hparams=dict(pad_val=fill, interpolation=each))] for each in interpolations],
    ),
    dict(
        type="RandomErasing",
        erase_prob=0.25,
        mode="rand",
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=_base_.bgr_mean,
        fill_std=_base_.bgr_std,
    ),
    dict(type="PackInputs"),
]
# The middle 0.9 of the shorter side: 224 of 248 pixels.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=248, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=256, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=256, dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=None)
param_scheduler = _base_.param_scheduler  # mmengine puts the base here
param_scheduler[0].update(start_factor=5e-4)
param_scheduler[1].update(begin=0)  # over the whole run, whose first epochs the warm-up holds down
# ExportHook of runtime.py, then the average: decay 0.99984.
custom_hooks = [dict(type="ExportHook"), dict(type="EMAHook", momentum=1.6e-4)]
auto_scale_lr = dict(base_batch_size=2048)
