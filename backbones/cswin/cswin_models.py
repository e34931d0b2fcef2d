"""The registered CSWins: ``cswin_<size>`` as published, and every encoding as ``<encoding>_cswin_<size>``."""

from __future__ import annotations

from typing import Any

from timm.models._builder import resolve_pretrained_cfg

from visionpe.backbones.cswin.model import CSWinTransformer, published_stripes
from visionpe.backbones.shared.registering import Family, base_cfg

__all__: list[str] = []

SIZES: dict[str, dict[str, Any]] = {
    "t": {"embed_dim": 64, "depths": (1, 2, 21, 1), "num_heads": (2, 4, 8, 16)},
    "s": {"embed_dim": 64, "depths": (2, 4, 32, 2), "num_heads": (2, 4, 8, 16)},
    "b": {"embed_dim": 96, "depths": (2, 4, 32, 2), "num_heads": (4, 8, 16, 32)},
    "l": {"embed_dim": 144, "depths": (2, 4, 32, 2), "num_heads": (6, 12, 24, 24)},
}

RELEASES = "https://github.com/microsoft/CSWin-Transformer/releases/download/v0.1.0/"
# size -> tag -> the published file, the default first
WEIGHTS = {
    "t": {"ms_in1k": "cswin_tiny_224.pth"},
    "s": {"ms_in1k": "cswin_small_224.pth"},
    "b": {"ms_in1k": "cswin_base_224.pth", "ms_384_in1k": "cswin_base_384.pth"},
    "l": {
        "ms_in22k_ft_in1k": "cswin_large_224.pth",
        "ms_384_in22k_ft_in1k": "cswin_large_384.pth",
        "ms_in22k": "cswin_large_22k_224.pth",
    },
}

default_cfgs: dict[str, Any] = {}


def _cfg(tag: str = "", file: str = "") -> dict[str, Any]:
    # The size is called fixed so that img_size follows the weights; any size runs.
    changes: dict[str, Any] = {"fixed_input_size": True, "pool_size": (7, 7)}
    if file:
        changes |= {"url": RELEASES + file, "license": "mit"}
    if "384" in tag:
        changes |= {"input_size": (3, 384, 384), "pool_size": (12, 12), "crop_pct": 1.0}
    if tag == "ms_in22k":
        changes["num_classes"] = 21841
    return base_cfg(**changes)


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    if prefix not in ("", "lepe"):
        return {"": _cfg()}
    return {tag: _cfg(tag, file) for tag, file in WEIGHTS[size].items()}


class CSWinFamily(Family):
    """CSWin's names; features come with norms, in stripes as wide as those of the weights."""

    def create(self, variant: str, pretrained: bool = False, **kwargs: Any) -> CSWinTransformer:
        """See :meth:`Family.create`."""
        kwargs = self.with_defaults(kwargs)
        if kwargs.get("feature_norms") and kwargs.get("stripe_widths") is None:
            chosen = (kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
            weights = resolve_pretrained_cfg(variant, *chosen).input_size
            kwargs["stripe_widths"] = published_stripes(weights[-2:], len(kwargs["depths"]))
        return super().create(variant, pretrained, **kwargs)


CSWinFamily(
    "cswin", CSWinTransformer, SIZES, "lepe", __name__, _cfgs, of_features={"feature_norms": True}
).register_all()
