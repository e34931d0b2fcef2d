# RoPE-Mixed over three axes in place of the contextual encoding, the rest alike.
_base_ = "swin3d_s.py"

model = dict(pos_encoding="rope_mixed")
