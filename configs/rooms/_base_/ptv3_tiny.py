"""A tiny Point Transformer V3 on labelled rooms."""

_base_ = "rooms.py"

model = dict(
    type="CloudSegmentor",
    model_name="ptv3_b_unet",
    num_classes=5,
    # Two voxels of three are walls.
    class_weight=[1.0, 0.4, 2.0, 2.0, 2.0],
    in_chans=6,
    embed_dims=(24, 48, 96),
    depths=(2, 2, 2),
    num_heads=(2, 4, 8),
    decoder_dims=(24, 48),
    decoder_depths=(1, 1),
    decoder_heads=(2, 4),
    patch_size=128,
    strides=(2, 2),
    drop_path_rate=0.0,
    # The published deviation of 0.02 is for hundreds of channels: with 24 of them learning starts far too slowly.
    init_cfg=dict(type="Kaiming", layer="Linear", mode="fan_in", nonlinearity="linear"),
)
