_base_ = "swin3d_s.py"

model = dict(model_name="swin3d_l_unet")
