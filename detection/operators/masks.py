"""Operators of ``mmcv._ext`` on masks of pixels, on plain PyTorch, for every device: PSA's and masked convolution.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _gathered(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return (B, Y, X, H, W): of ``maps`` (B, M, N, H, W) at each (h, w) rows ``y`` (Y, H), columns ``x`` (X, W).

    It is 0 where a row or a column is not there.
    """
    rows, columns = maps.shape[1:3]
    height, width = (torch.arange(n, device=maps.device) for n in maps.shape[3:])
    inside = ((y >= 0) & (y < rows))[:, None, :, None] & ((x >= 0) & (x < columns))[None, :, None]
    y, x = y.clamp(0, rows - 1)[:, None, :, None], x.clamp(0, columns - 1)[None, :, None]
    return maps[:, y, x, height[:, None], width].masked_fill(~inside, 0)


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Attention maps over a whole map from those around each pixel (Zhao et al. 2018, PSANet).

    Args:
        input: (B, h * w, H, W): for each pixel the weights of h x w pixels around it.
        output: (B, H * W, H, W), written in place: for each pixel the weights of all pixels of the map, 0 where it has
            none; distributed, what each pixel gives to the others in their places.
        psa_type: 0 to collect, 1 to distribute.
        num_: B.
        h_feature: H.
        w_feature: W.
        h_mask: h.
        w_mask: w.
        half_h_mask: Row of the weights that stands for the pixel itself.
        half_w_mask: The same for the column.
    """
    grid = [torch.arange(n, device=input.device) for n in (h_feature, w_feature)]
    y, x = (half + n[:, None] - n for half, n in zip((half_h_mask, half_w_mask), grid))
    pixels = h_feature * w_feature
    found = _gathered(input.view(num_, h_mask, w_mask, h_feature, w_feature), y, x).reshape(num_, pixels, pixels)
    output.copy_((found.transpose(1, 2) if psa_type else found).reshape(output.shape))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Gradient of ``psamask_forward``, written to ``grad_input``."""
    pixels = h_feature * w_feature
    given = grad_output.reshape(num_, pixels, pixels)
    given = (given.transpose(1, 2) if psa_type else given).reshape(num_, *[h_feature, w_feature] * 2)
    y, x = (
        torch.arange(taps, device=given.device)[:, None] + torch.arange(n, device=given.device) - half
        for taps, n, half in ((h_mask, h_feature, half_h_mask), (w_mask, w_feature, half_w_mask))
    )
    grad_input.copy_(_gathered(given, y, x).reshape(grad_input.shape))


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """The pixels that a convolution reads at some places.

    Args:
        im: (1, C, H, W).
        mask_h_idx: (N,) rows of the places in the output.
        mask_w_idx: (N,) columns.
        col: (C * kernel_h * kernel_w, N), written in place; 0 outside of the map.
        kernel_h: Rows of the kernel.
        kernel_w: Columns of the kernel.
        pad_h: Rows of zeros around the map.
        pad_w: Columns of zeros around the map.
    """
    padded = F.pad(im[0], [pad_w, max(kernel_w - 1 - pad_w, 0), pad_h, max(kernel_h - 1 - pad_h, 0)])
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows, columns].reshape(col.shape))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Put (C, N) numbers to their N places in ``im`` (1, C, height, width); the rest stays as it is."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
