"""TimmFeatures of a few channels, around models of timm and of ours."""

import torch

from visionpe.detection import TimmFeatures

TINY = {
    "resnet18": {},
    "convnext_atto": {},
    "pvt_v2_b0": {},
    "swin_tiny_patch4_window7_224": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "vit_tiny_patch16_224": {"embed_dim": 24, "depth": 2, "num_heads": 2, "out_indices": (0, 1)},
    "rope_ape_vit_s": {"embed_dim": 24, "depth": 2, "num_heads": 2, "out_indices": (1,), "img_size": 64},
    "vitdet_b": {"embed_dim": 24, "depth": 4, "num_heads": 2, "out_indices": (3,), "img_size": 64, "window_size": 2},
    "swin_t": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "crossformer_t": {"embed_dim": 16, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
    "cswin_t": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (2, 4, 8, 8)},
    "rmt_t": {"embed_dim": (16, 32, 32, 32), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 4, 4)},
    "cpvt_v2_s": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "mlp_ratios": (1, 1, 1, 1)},
    "mit_b0": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)},
    "cvt_13": {"embed_dim": 8, "depths": (1, 1, 1), "num_heads": (1, 2, 2), "out_indices": (0, 1, 2)},
}
# Of them, models of timm's that are adapted.
ADAPTED = ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224")


def build(name, **kwargs):
    """The backbone of this name, small, in evaluation mode."""
    return TimmFeatures(name, **{**TINY[name], **kwargs}).eval()


def drawn(module):
    """Random weights, those too that start at zero or one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module
