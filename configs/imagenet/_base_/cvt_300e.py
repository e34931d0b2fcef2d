# CvT-13's recipe (microsoft/CvT, experiments/imagenet/cvt/cvt-13-224x224.yaml, on eight GPUs as its README has it):
# DeiT's with batch 2048, but each image once an epoch. The paper (https://arxiv.org/abs/2103.15808, section 4.1) says
# rate 0.02. Stochastic depth in the last stage alone.
_base_ = "deit_2048.py"

model = dict(model_name="cvt_13", drop_path_rate=0.1)
train_dataloader = dict(sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True))
