# Queries and keys turned on three axes, as in LitePT (https://arxiv.org/abs/2512.13689), in place of the convolutions
# ahead of each block, the rest alike. Nothing is published of it.
_base_ = "ptv3_b.py"

model = dict(pos_encoding="rope_axial(layout=axis_half, grid_indexing=ij)")
