_base_ = "_base_/ptv3_tiny.py"

model = dict(pos_encoding="rope_axial(layout=axis_half, grid_indexing=ij)")
