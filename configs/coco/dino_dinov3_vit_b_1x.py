_base_ = "_base_/dino_dinov3.py"
