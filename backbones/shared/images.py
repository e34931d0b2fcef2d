"""What a forward pass is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.fx import Proxy

from visionpe.cameras import Cameras
from visionpe.checks import check_count, check_counts, shown
from visionpe.tracing import has_autocast, is_exporting

# Dtypes of weights that must be those of the images; others are of quantised models, which convert.
PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_images(
    x: Any, in_chans: int, projection: nn.Module, multiple: Sequence[int] | None = None, least: int = 1
) -> None:
    """Refuse what is no batch of images for a model; a look at shape and dtype alone, so it costs nothing on a device.

    Args:
        x: What was given.
        in_chans: Channels that the model takes.
        projection: The convolution that meets the images first.
        multiple: Height and width must be multiples of these, pixels; None for images that are padded.
        least: Pixels of the shortest side that the projection can take.

    Raises:
        TypeError: If it is no tensor of floating-point numbers, or not in the dtype of the model outside of autocast.
        ValueError: If it is not ``(B, in_chans, height, width)``, has no pixels, or the patch does not divide it.
    """
    if torch.jit.is_tracing():  # sizes are tensors there
        return
    allowed = f"floating point (B, {in_chans}, height, width)"
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"images: {what} is no batch of normalised images; allowed: {allowed}")
    if x.ndim != 4 or x.shape[1] != in_chans:
        raise ValueError(f"images: shape {tuple(x.shape)}; allowed: {allowed}")
    check_dtype("images", x, getattr(projection, "weight", None))
    if is_exporting():  # a graph serves every size
        return
    height, width = x.shape[2:]
    if height < least or width < least:
        raise ValueError(f"images: {height} x {width} pixels are too few; allowed: {least} x {least} or more")
    if multiple is not None and (height % multiple[0] or width % multiple[1]):
        raise ValueError(
            f"images: {height} x {width} pixels are no multiple of patch_size={tuple(multiple)}; allowed: multiples, "
            "or a model with dynamic_img_pad=True"
        )
    if multiple is not None and (height < multiple[0] or width < multiple[1]):
        raise ValueError(f"images: {height} x {width} pixels hold no patch; allowed: {tuple(multiple)} or more")


def check_views(x: Any, cameras: Any) -> None:
    """Refuse what are no views of these cameras.

    Raises:
        TypeError: If one is no tensor, or no cameras.
        ValueError: If there are other views or scenes than cameras.
    """
    if not isinstance(cameras, Cameras):
        raise TypeError(f"cameras={type(cameras).__name__} are none; allowed: a visionpe.Cameras, or None")
    if not isinstance(x, Tensor):
        raise TypeError(f"images: {type(x).__name__} are no views; allowed: a tensor (B, V, C, height, width)")
    scenes = "B" if cameras.batch is None else cameras.batch
    if x.ndim != 5 or x.shape[1] != cameras.count or cameras.batch not in (None, x.shape[0]):
        raise ValueError(
            f"images: shape {tuple(x.shape)} with cameras; allowed: ({scenes}, {cameras.count}, C, height, width)"
        )


def check_dtype(name: str, x: Tensor, weight: Any) -> None:
    """Refuse an input in another dtype than the weights that it meets, outside of autocast, which leaves float64 alone.

    Raises:
        TypeError: Names the input and both.
    """
    if not isinstance(weight, Tensor) or x.dtype == weight.dtype or weight.dtype not in PLAIN:
        return
    kind, double = x.device.type, torch.float64 in (x.dtype, weight.dtype)
    if double or not (has_autocast(kind) and torch.is_autocast_enabled(kind)):
        raise TypeError(f"{name}: {x.dtype}; allowed: {weight.dtype}, as the weights are, or torch.autocast below it")


def check_mask(mask: Any, x: Tensor) -> None:
    """Refuse what is no attention mask for tokens ``(B, N, dim)``.

    Raises:
        TypeError: If it is no boolean or floating tensor.
        ValueError: If its shape does not broadcast to ``(B, heads, N, N)``.
    """
    if mask is None or isinstance(x, Proxy) or x.ndim != 3 or torch.jit.is_tracing() or is_exporting():
        return
    batch, tokens = x.shape[:2]
    allowed = f"bool (True takes part) or floating, to broadcast to ({batch}, heads, {tokens}, {tokens})"
    if not isinstance(mask, Tensor) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        what = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"attn_mask: {what}; allowed: {allowed}")
    fits = all(n in (1, tokens) for n in mask.shape[-2:]) and (mask.ndim < 4 or mask.shape[0] in (1, batch))
    if not 2 <= mask.ndim <= 4 or not fits:
        raise ValueError(f"attn_mask: shape {tuple(mask.shape)}; allowed: {allowed}")


def read_mask(mask: Any, x: Tensor, is_causal: bool = False) -> Tensor | None:
    """A mask for tokens ``(B, N, dim)``; as in timm, ``is_causal`` takes the place of one: no token sees a later one.

    Raises:
        TypeError, ValueError: As :func:`check_mask`.
    """
    check_mask(mask, x)
    if not is_causal:
        return mask
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()


def take_indices(count: int, indices: Any) -> tuple[list[int], int]:
    """Which of ``count`` features are wanted, and the last of them; timm's rules.

    Raises:
        TypeError: If ``indices`` is neither a whole number nor a sequence of them.
        ValueError: If one is out of range.
    """
    if indices is not None:
        if isinstance(indices, int) and not isinstance(indices, bool):
            check_count("indices", indices, 1, count)
        else:
            try:
                indices = list(check_counts("indices", indices, None, -count, count - 1))
            except ValueError:
                allowed = f"{-count} to {count - 1}, one or more"
                raise ValueError(f"indices={shown(indices)}: not every one is a feature; allowed: {allowed}") from None
    return feature_take_indices(count, indices)
