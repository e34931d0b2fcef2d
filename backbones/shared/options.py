"""Keywords that every backbone in stages of windows or stripes takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from visionpe.backbones.shared.arguments import check_arguments, check_keywords, keywords_of
from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.partition import Padding
from visionpe.checks import check_choice, shown

POOLS = ("avg", "max", "avgmax", "catavgmax", "fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax", "")


def check_pooling(global_pool: str, num_classes: int) -> None:
    """Refuse pooling that is unknown, or none ahead of a classifier.

    Raises:
        ValueError: Names ``global_pool``.
    """
    check_choice("global_pool", global_pool, POOLS)
    if not global_pool and num_classes:
        raise ValueError(f"global_pool='' with num_classes={num_classes}: a classifier needs one; allowed: avg, ...")


@dataclass(frozen=True, kw_only=True)
class PyramidOptions:
    """What does not differ between Swin, CSWin and their like.

    Args:
        in_chans: Channels of the images.
        num_classes: 0 for no classifier.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or empty where there is no classifier.
        mlp_ratio: Width of the MLPs over that of the tokens.
        qkv_bias: In the projection to queries, keys and values.
        drop_rate, proj_drop_rate, attn_drop_rate: Dropout of the pooled features, the projections and MLPs, the
            attention weights; 0 to below 1.
        feature_norms: A norm for the features of each stage, as dense heads want them; it replaces the final norm. By
            default for CSWin with ``features_only``, and for both in detectors and segmentors.
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
    def read(cls, model: type[nn.Module], given: dict[str, Any], without: Collection[str] = ()) -> PyramidOptions:
        """The keywords that a constructor was given besides its own.

        Args:
            model: Whose constructor it is.
            given: The keywords.
            without: Options that the model does not have.

        Raises:
            TypeError: If one of them is unknown, with near matches.
        """
        options = [field.name for field in fields(cls) if field.name not in without]
        check_keywords(model.__name__, given, [*options, *keywords_of(model)])
        return cls(**given)

    def __post_init__(self) -> None:
        check_arguments(vars(self))
        check_pooling(self.global_pool, self.num_classes)
        for name in ("norm_layer", "act_layer"):
            if not callable(value := getattr(self, name)):
                raise TypeError(f"{name}={shown(value)} is no layer; allowed: a class of one")

    @property
    def factory(self) -> dict[str, Any]:
        """Of the parameters, as torch's modules take it."""
        return {"device": self.device, "dtype": self.dtype}

    def block(
        self,
        dim: int,
        num_heads: int,
        *,
        drop_path: float,
        depth: int,
        padding: Padding = "mask",
        block: type[WindowBlock] = WindowBlock,
        **own: Any,
    ) -> WindowBlock:
        """A block of a stage.

        Args:
            dim, num_heads: Of the stage.
            drop_path: Stochastic depth, 0 to 1.
            depth: Index of the block in its stage.
            padding: What windows beyond the map hold.
            block: Its class.
            own: Keywords of the block that a family has of its own, or in place of these options.
        """
        shared = {
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "proj_drop": self.proj_drop_rate,
            "attn_drop": self.attn_drop_rate,
            "norm_layer": self.norm_layer,
            "act_layer": self.act_layer,
            **self.factory,
        }
        return block(dim, num_heads, drop_path=drop_path, depth=depth, padding=padding, **{**shared, **own})
