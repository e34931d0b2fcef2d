_base_ = "_base_/ptv3_tiny.py"

model = dict(pos_encoding="none")
