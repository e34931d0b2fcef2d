# From the weights of Structured3D: 74.5 mIoU are published.
_base_ = "swin3d_l.py"

weights = "data/weights/swin3d_rgb_l.pth"
model = dict(init_cfg=dict(type="Pretrained", checkpoint=weights, filtered=True, skip_first_conv=False))
test_evaluator = dict(counts="work_dirs/s3dis/swin3d_l_pretrained.json")
