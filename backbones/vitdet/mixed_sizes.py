"""Images of several sizes in one batch of a ViT with windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from visionpe.backbones.shared.mixed_images import is_mixed


class SizeBySize(nn.Module):
    """Mixin of such ViTs, ahead of the plain one: a map that is cut into windows is of one size, so each runs apart."""

    # Of the model.
    _read_mixed: Any
    _heads: Any

    def forward_features(self, x: Any, attn_mask: Tensor | None = None, **mixed: Any) -> Any:
        """Images ``(B, C, H, W)`` to maps ``(B, num_features, height, width)``; of several sizes a list of maps."""
        if not is_mixed(x) and mixed.get("patch_coord") is None:
            return super().forward_features(x, attn_mask, **mixed)  # type: ignore[misc]
        of_one_size = super().forward_features  # type: ignore[misc]
        return self._each_size(lambda images: of_one_size(images, attn_mask), x, **mixed)

    def forward_intermediates(self, x: Any, *args: Any, intermediates_only: bool = False, **kwargs: Any) -> Any:
        """As of every ViT; of images of several sizes every feature is a list."""
        of_one_size = super().forward_intermediates  # type: ignore[misc]
        if not is_mixed(x):
            return of_one_size(x, *args, intermediates_only=intermediates_only, **kwargs)
        if kwargs.get("output_dict"):
            raise ValueError("output_dict=True with images of several sizes; allowed: False")

        def features(images: Tensor) -> list[Any]:
            final, maps = of_one_size(images, *args, **kwargs)
            return list(zip(final, *maps))  # those of each image

        final, *maps = ([*its] for its in zip(*self._each_size(features, x)))
        return maps if intermediates_only else (final, maps)

    def _each_size(
        self,
        run: Callable[[Tensor], Any],
        x: Any,
        patch_coord: Any = None,
        patch_valid: Any = None,
        batching: str = "auto",
    ) -> list[Any]:
        """What ``run`` gives for each image, in the order of the batch."""
        if batching != "auto":
            raise ValueError(
                f"batching={batching!r}: maps that are cut into windows run size by size; allowed: 'auto', or a vit_* "
                "model"
            )
        done: dict[int, Any] = {}
        for batch in self._read_mixed(x, patch_coord, patch_valid):
            if batch.kept is not None:
                raise ValueError(
                    "patch_valid: patches are missing, which leaves holes in windows; allowed: all of them"
                )
            done.update(zip(batch.samples, run(batch.images)))
        return [done[index] for index in range(len(done))]
