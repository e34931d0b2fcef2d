# From the weights of Structured3D without stem and decoder: 76.2 mIoU are published, 77.5 with twelve votes.
_base_ = "swin3d_l.py"

weights = "data/weights/swin3d_rgbn_l.pth"
model = dict(init_cfg=dict(type="Pretrained", checkpoint=weights, filtered=True, skip_first_conv=True))
