"""What pyramids share when they are adapted whose stages go from map to map, each with encodings of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import Adapted
from visionpe.backbones.shared.images import take_indices


class AdaptedStages(Adapted):
    """Mixin of models, with a :class:`StageEncoding` for each stage in ``pos_encoding``."""

    # Of the model.
    pos_encoding: nn.ModuleList

    def begin(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of any size to the map ``(B, height, width, C)`` that the first stage gets."""
        raise NotImplementedError

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Map to map, both ``(B, height, width, C)``."""
        raise NotImplementedError

    def as_features(self, x: Tensor, index: int) -> Tensor:
        """The map of stage ``index``, where the model ends, as ``forward_features`` gives it."""
        raise NotImplementedError

    def normed(self, x: Tensor, index: int) -> Tensor:
        """The map of a stage, by the final norm where that follows it. Default: there is none."""
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the features of the last stage."""
        x = self.begin(x)
        for index in range(len(self.pos_encoding)):
            x = self.run_stage(index, x)
        return self.as_features(x, index)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Features of the stages, in timm's manner; ``norm`` is the final one, of the last stage.

        Raises:
            ValueError: If ``output_fmt`` is not ``NCHW``.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r} is unknown; allowed: NCHW")
        wanted, last = take_indices(len(self.pos_encoding), indices)
        x, taken = self.begin(x), []
        for index in range(last + 1 if stop_early else len(self.pos_encoding)):
            x = self.run_stage(index, x)
            if index in wanted:
                feature = self.normed(x, index) if norm else x
                taken.append(feature.permute(0, 3, 1, 2).contiguous())
        return taken if intermediates_only else (self.as_features(x, index), taken)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one asked for, their positions, the final norm and the classifier."""
        wanted, last = take_indices(len(self.pos_encoding), indices)
        wanted = super().prune_intermediate_layers(wanted, prune_norm, prune_head)
        self.pos_encoding = self.pos_encoding[: last + 1]
        return wanted
