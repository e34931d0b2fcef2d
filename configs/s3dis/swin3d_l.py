# Swin3D-L: ten passes an epoch, cosine from 1e-3 to 1e-6 with 1,500 iterations of warm-up.
_base_ = "swin3d_s.py"

model = dict(model_name="swin3d_l_unet")
train_dataloader = dict(dataset=dict(times=10))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=1500),
    dict(type="CosineAnnealingLR", T_max=100, eta_min=1e-6, convert_to_iter_based=True),
]
test_evaluator = dict(counts="work_dirs/s3dis/swin3d_l.json")
