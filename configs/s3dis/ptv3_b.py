# Point Transformer V3 (https://arxiv.org/abs/2312.10035) on Area 5 of S3DIS, 100 epochs of 30 passes, from scratch.
_base_ = ["../_base_/ptv3.py", "_base_/pointcept.py"]

model = dict(num_classes=13, ignore_index=255)
test_evaluator = dict(counts="work_dirs/s3dis/ptv3_b.json")
