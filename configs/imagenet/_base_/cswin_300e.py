# CSWin's recipe (https://arxiv.org/abs/2107.00652, section 4.1) with the numbers of the authors' command for T: batch
# 8 x 256 = 2048, rate 2e-3, decay 0.05, stochastic depth 0.2, no clipping. Their averaging of weights is left out.
_base_ = "adamw_300e.py"

model = dict(model_name="cswin_t", drop_path_rate=0.2)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=None)
auto_scale_lr = dict(base_batch_size=2048)
