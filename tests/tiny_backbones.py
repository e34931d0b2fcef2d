"""A ViT, and one backbone of each family with windows, at sizes for tests."""

PLAIN = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
MODELS = {
    "none_vit_ti": PLAIN,
    "vitdet_b": PLAIN | {"window_size": 3, "global_blocks": (1,)},
    "swin_t": {"img_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2), "window_size": 3},
    "cswin_t": {"img_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "stripe_widths": (1, 2, 1, 1)},
    "crossformer_t": {"img_size": 32, "embed_dim": 16, "depths": (2, 1), "num_heads": (1, 2), "group_size": 3},
    "rmt_t": {"img_size": 32, "embed_dim": (16, 16, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)},
    "cpvt_v2_s": {"img_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)},
    "mit_b0": {"img_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)},
    "cvt_13": {"img_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)},
}
