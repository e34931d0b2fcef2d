"""A tiny Swin3D on labelled rooms."""

_base_ = "rooms.py"

model = dict(
    type="CloudSegmentor",
    model_name="swin3d_s_unet",
    num_classes=5,
    # Two voxels of three are walls.
    class_weight=[1.0, 0.4, 2.0, 2.0, 2.0],
    in_chans=6,
    signals="XYZ_RGB",
    first_down_stride=2,
    embed_dims=(24, 48, 96),
    depths=(2, 2, 2),
    num_heads=(3, 3, 6),
    window_size=(5, 5, 5),
    drop_path_rate=0.0,
    # The published deviation of 0.02 is for hundreds of channels: with 24 of them learning starts far too slowly.
    init_cfg=dict(type="Kaiming", layer="Linear", mode="fan_in", nonlinearity="linear"),
)
