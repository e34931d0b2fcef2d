_base_ = "_base_/swin3d_tiny.py"

model = dict(pos_encoding="none")
