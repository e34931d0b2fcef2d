# Fine-tuning of Hiera after MAE (https://arxiv.org/abs/2306.00989, appendix A.2 and table 14): what the table does not
# say is as in MAE (facebookresearch/mae, main_finetune.py), which they follow: random erasing, the ends of the rate,
# no average of weights. It starts from their MAE weights. 300, 200, 100, 100 epochs for T, S, B, B+ and layer decay
# 0.65, 0.65, 0.7, 0.7; 50 epochs, rate 1e-3 and other numbers for L and H.
_base_ = "pyramid_300e.py"

epochs, warmup = 300, 5

model = dict(model_name="hiera_t.mae", pretrained=True, drop_path_rate=0.1)
optim_wrapper = dict(optimizer=dict(lr=2e-3), paramwise_cfg=dict(layer_decay=0.65))
# Each layer's rate ends at the same share of it.
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, end=warmup, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=1e-6 / 2e-3,
        by_epoch=True,
        begin=warmup,
        end=epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=epochs)
