_base_ = "_base_/mask_rcnn_vitdet.py"
