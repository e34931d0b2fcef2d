# From the weights of Structured3D without stem and decoder: 75.6 mIoU are published, 76.8 with twelve votes.
_base_ = "swin3d_s.py"

weights = "data/weights/swin3d_rgbn_s.pth"
model = dict(init_cfg=dict(type="Pretrained", checkpoint=weights, filtered=True, skip_first_conv=True))
