# From the weights of Structured3D, stem included, decoder not: 73.0 mIoU are published.
_base_ = "swin3d_s.py"

weights = "data/weights/swin3d_rgb_s.pth"
model = dict(init_cfg=dict(type="Pretrained", checkpoint=weights, filtered=True, skip_first_conv=False))
test_evaluator = dict(counts="work_dirs/s3dis/swin3d_s_pretrained.json")
