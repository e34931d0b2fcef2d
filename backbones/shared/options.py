"""Keywords that every backbone in stages of windows or stripes takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from visionpe.backbones.shared.block import Padding, WindowBlock


@dataclass(frozen=True, kw_only=True)
class PyramidOptions:
    """What does not differ between Swin and CSWin.

    Args:
        in_chans: Channels of the images.
        num_classes: 0 for no classifier.
        global_pool: ``avg`` or empty.
        mlp_ratio: Width of the MLPs over that of the tokens.
        qkv_bias: In the projection to queries, keys and values.
        drop_rate, proj_drop_rate, attn_drop_rate: Dropout of the pooled features, the projections and MLPs, the
            attention weights; 0 to 1.
        feature_norms: A norm for the features of each stage, as dense heads want them; it replaces the final norm.
        norm_layer: Of the blocks, the final norm and the features.
        act_layer: Of the MLPs.
        device, dtype: Of the parameters.
    """

    in_chans: int = 3
    num_classes: int = 1000
    global_pool: str = "avg"
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    feature_norms: bool = False
    norm_layer: Any = nn.LayerNorm
    act_layer: Any = nn.GELU
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    @classmethod
    def read(cls, model: type[nn.Module], given: dict[str, Any]) -> PyramidOptions:
        """The keywords that a constructor was given besides its own.

        Raises:
            TypeError: If one of them is unknown, with near matches.
        """
        known = [field.name for field in fields(cls)]
        for key in given:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise TypeError(f"{model.__name__} takes no keyword {key!r}{hint}")
        return cls(**given)

    @property
    def factory(self) -> dict[str, Any]:
        """Of the parameters, as torch's modules take it."""
        return {"device": self.device, "dtype": self.dtype}

    def block(
        self, dim: int, num_heads: int, *, drop_path: float, depth: int, padding: Padding = "mask"
    ) -> WindowBlock:
        """A block of a stage.

        Args:
            dim, num_heads: Of the stage.
            drop_path: Stochastic depth, 0 to 1.
            depth: Index of the block in its stage.
            padding: What windows beyond the map hold.
        """
        return WindowBlock(
            dim,
            num_heads,
            drop_path=drop_path,
            depth=depth,
            padding=padding,
            mlp_ratio=self.mlp_ratio,
            qkv_bias=self.qkv_bias,
            proj_drop=self.proj_drop_rate,
            attn_drop=self.attn_drop_rate,
            norm_layer=self.norm_layer,
            act_layer=self.act_layer,
            **self.factory,
        )
