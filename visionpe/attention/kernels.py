"""The kernels behind :func:`visionpe.attend`: several ways to the same attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visionpe.attention.bias import Bias, LowRankBias, narrowed
from visionpe.attention.logits import Decay
from visionpe.tracing import is_exporting, is_tracing, is_transformed

Dropout = Callable[[Tensor], Tensor]

# A bias matrix above this is built in parts, so that memory stays linear in the tokens.
MATRIX_BYTES = 256 * 2**20
# Of a part: small enough for a cache, while PyTorch's kernel works best on 768 queries and more at a time.
CHUNK_BYTES = 16 * 2**20
CHUNK_ROWS = 1024
# Of the logits of short sequences that are computed together.
SMALL_BYTES = 2 * 2**20


def additive_mask(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask where there is no bias: PyTorch's kernels want an additive one in the dtype of the queries."""
    return mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)


def add_mask(bias: Tensor, mask: Tensor | None) -> Tensor:
    """A bias under a mask that is boolean (True takes part) or additive."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, float("-inf"))
    return bias + mask.to(bias.dtype)


def matrix(biases: Sequence[Bias], mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Biases and mask in one additive tensor, or the mask as it is where there is no bias."""
    if not biases:
        return additive_mask(mask, dtype)
    total = biases[0].matrix(dtype)
    for bias in biases[1:]:
        total = total + bias.matrix(dtype)
    return add_mask(total, mask)


def rows(biases: Sequence[Bias], mask: Tensor | None, start: int, stop: int, dtype: torch.dtype) -> Tensor | None:
    """The same for queries ``start`` to ``stop``."""
    part = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:stop, :]
    if not biases:
        return additive_mask(part, dtype)
    total = biases[0].rows(start, stop, dtype)
    for bias in biases[1:]:
        total = total + bias.rows(start, stop, dtype)
    return add_mask(total, part)


def separate_samples(biases: Sequence[Bias], mask: Tensor | None) -> int:
    """Samples for which biases and mask have a matrix of their own."""
    masks = 1 if mask is None or mask.ndim < 4 else mask.shape[0]
    return max([masks, *(bias.batch for bias in biases)])


def matrix_bytes(q: Tensor, k: Tensor, biases: Sequence[Bias], mask: Tensor | None) -> int:
    """What the matrix of biases and mask would take."""
    return separate_samples(biases, mask) * q.shape[-3] * q.shape[-2] * k.shape[-2] * q.element_size()


def ranges(length: int, step: int) -> list[tuple[int, int]]:
    """0 to ``length`` in steps."""
    step = max(1, step)
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def _parts(
    q: Tensor, k: Tensor, biases: Sequence[Bias], mask: Tensor | None
) -> tuple[list[slice], list[slice], list[slice]]:
    """Ranges of samples, queries and heads, one of each of which takes at most ``CHUNK_BYTES`` of bias."""
    row = k.shape[-2] * q.element_size()
    queries = max(1, min(q.shape[-2], CHUNK_ROWS, CHUNK_BYTES // row))
    heads = max(1, min(q.shape[1], CHUNK_BYTES // (row * queries)))
    apart = separate_samples(biases, mask) > 1
    samples = max(1, CHUNK_BYTES // (row * queries * heads)) if apart else q.shape[0]
    steps = zip((q.shape[0], q.shape[-2], q.shape[1]), (samples, queries, heads))
    every = [[slice(*pair) for pair in ranges(length, step)] for length, step in steps]
    return every[0], every[1], every[2]


def chunked(
    q: Tensor, k: Tensor, v: Tensor, biases: Sequence[Bias], mask: Tensor | None, dropout_p: float, scale: float
) -> Tensor:
    """PyTorch's kernel over parts of the samples, heads and queries, each with its rows of the bias.

    Memory is linear in the tokens, with gradients too: a part is computed again where its gradient is asked for.
    """

    def part(samples: slice, heads: slice, queries: slice) -> Tensor:
        own = [bias.narrow(samples, heads) for bias in biases]
        own_mask = mask if mask is None or mask.ndim < 4 else narrowed(mask, samples, heads)
        return F.scaled_dot_product_attention(
            q[samples, heads, queries],
            k[samples, heads],
            v[samples, heads],
            attn_mask=rows(own, own_mask, queries.start, queries.stop, q.dtype),
            dropout_p=dropout_p,
            scale=scale,
        )

    every_sample, every_query, every_head = _parts(q, k, biases, mask)
    # Heads are innermost, because they may share what a row takes to build.
    parts = [(i, j, n) for i in every_sample for n in every_query for j in every_head]
    if torch.is_grad_enabled() or is_transformed():
        done = [checkpoint(part, *which, use_reentrant=False) for which in parts]
        done = [torch.cat(group, dim=1) for group in _groups(done, len(every_head))]
        return torch.cat([torch.cat(group, dim=2) for group in _groups(done, len(every_query))], dim=0)
    # Small results kept between large temporaries would leave the heap full of holes: one tensor takes them all.
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    for samples, heads, queries in parts:
        out[samples, heads, queries] = part(samples, heads, queries)
    return out


def _groups(tensors: list[Tensor], length: int) -> list[list[Tensor]]:
    return [tensors[i : i + length] for i in range(0, len(tensors), length)]


def with_low_rank_channels(
    q: Tensor, k: Tensor, v: Tensor, biases: Sequence[LowRankBias], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys with the factors of low-rank biases as extra channels; their product needs no further scale.

    All are padded to the same width, as the fused kernels want it.
    """
    left = [bias.left.to(q.dtype).expand(*q.shape[:-1], -1) for bias in biases]
    right = [bias.right.to(k.dtype).expand(*k.shape[:-1], -1) for bias in biases]
    return evened(torch.cat([q * scale, *left], dim=-1), torch.cat([k, *right], dim=-1), v)


def uneven_and_long(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """True on a CPU where values have another width than keys, which its fused kernel refuses, and logits are many."""
    (_, heads, queries, _), (keys, width) = q.shape, k.shape[2:]
    if v.shape[-1] == width or heads * queries * keys <= CHUNK_BYTES:  # this first: it is asked in every block
        return False
    return q.device.type == "cpu" and not is_tracing()


def evened(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All of one width: zeros beside the narrower change no product, and stand behind the values."""
    missing = v.shape[-1] - k.shape[-1]
    if missing > 0:
        return F.pad(q, (0, missing)), F.pad(k, (0, missing)), v
    return q, k, F.pad(v, (0, -missing))


def math(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    biases: Sequence[Bias],
    mask: Tensor | None,
    dropout_p: float,
    scale: float,
    dropout: Dropout | None = None,
) -> Tensor:
    """The formula as written."""
    logits = (q * scale) @ k.transpose(-2, -1)  # (B, heads, N, N)
    bias = matrix(biases, mask, q.dtype) if biases else None
    logits = add_mask(logits, mask) if bias is None else logits + bias
    return _dropped(logits.softmax(dim=-1), dropout_p, dropout) @ v


def _dropped(weights: Tensor, dropout_p: float, dropout: Dropout | None) -> Tensor:
    return F.dropout(weights, dropout_p) if dropout is None else dropout(weights)


def weights(
    logits: Tensor, biases: Sequence[Bias], mask: Tensor | None, decay: Decay | None, start: int, stop: int
) -> Tensor:
    """The softmax of the logits of queries ``start`` to ``stop``, ``(B, heads, rows, N)``, without biases so far."""
    if decay is None:
        extra = rows(biases, mask, start, stop, logits.dtype)
        return (logits if extra is None else add_mask(logits, extra)).softmax(dim=-1)
    bias = rows(biases, None, start, stop, logits.dtype)
    logits = decay.rows(logits if bias is None else logits + bias, start, stop)
    part = rows((), mask, start, stop, logits.dtype)  # a mask is no logit, so it does not decay
    return (logits if part is None else add_mask(logits, part)).softmax(dim=-1)


def decayed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    biases: Sequence[Bias],
    mask: Tensor | None,
    dropout_p: float,
    scale: float,
    decay: Decay,
    dropout: Dropout | None = None,
) -> Tensor:
    """The formula over parts, for logits that change by their own sign; linear memory without ``dropout``."""

    def part(start: int, stop: int, samples: slice = slice(None)) -> Tensor:
        logits = (q[samples, :, start:stop] * scale) @ k[samples].transpose(-2, -1)
        own = [bias.narrow(samples, slice(None)) for bias in biases] if samples != slice(None) else biases
        own_mask = mask if mask is None or mask.ndim < 4 else narrowed(mask, samples, slice(None))
        return _dropped(weights(logits, own, own_mask, decay, start, stop), dropout_p, dropout) @ v[samples]

    # An exported graph serves every size, so it cannot be cut into a number of parts.
    if is_exporting() or dropout is not None:
        return part(0, q.shape[-2])
    row = q.shape[1] * k.shape[-2] * q.element_size()
    if torch.is_grad_enabled() or is_transformed():
        steps = ranges(q.shape[-2], 4 * CHUNK_BYTES // (len(q) * row))
        if len(steps) == 1:
            return part(*steps[0])
        return torch.cat([checkpoint(part, *step, use_reentrant=False) for step in steps], dim=-2)
    # Several passes over the logits: they should stay in a cache.
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    queries = max(1, min(q.shape[-2], SMALL_BYTES // row))
    for start, stop in ranges(q.shape[-2], queries):
        for sample in ranges(len(q), SMALL_BYTES // (row * queries)):
            out[slice(*sample), :, start:stop] = part(start, stop, slice(*sample))
    return out


def _of_one_sample(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout_p: float, scale: float) -> Tensor:
    """``(heads, N, head_dim)`` each, with a bias of ``(heads or 1, N, N)``."""
    bias = bias if bias.shape[0] == q.shape[0] else bias.expand(q.shape[0], -1, -1)
    logits = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    weights = torch.softmax(logits, dim=-1, out=logits)
    return torch.bmm(F.dropout(weights, dropout_p) if dropout_p else weights, v)


def small(
    q: Tensor, k: Tensor, v: Tensor, biases: Sequence[Bias], mask: Tensor | None, dropout_p: float, scale: float
) -> Tensor:
    """The formula for many short sequences, over parts of them whose logits stay in the cache of a CPU.

    The bias, the product added to it and the softmax share one piece of memory, which a gradient would not allow.
    """
    if torch.is_grad_enabled() or is_transformed():
        return math(q, k, v, biases, mask, dropout_p, scale)
    shared = matrix(biases, None, q.dtype) if biases and all(bias.batch == 1 for bias in biases) else None

    def part(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
        if bias is not None and q.shape[0] == 1:
            return _of_one_sample(q[0], k[0], v[0], add_mask(bias, mask)[0], dropout_p, scale)[None]
        rows, columns, values = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)
        shape = (*q.shape[:-1], k.shape[2])
        if bias is None:
            flat = q.new_empty(rows.shape[0], *shape[2:])
            torch.baddbmm(flat, rows, columns, beta=0, alpha=scale, out=flat)
            flat = flat if mask is None else add_mask(flat.view(shape), mask).flatten(0, 1)
        else:
            flat = q.new_empty(shape).copy_(add_mask(bias, mask)).flatten(0, 1).baddbmm_(rows, columns, alpha=scale)
        weights = torch.softmax(flat, dim=-1, out=flat)
        return torch.bmm(F.dropout(weights, dropout_p) if dropout_p else weights, values).view(*q.shape[:-1], -1)

    batch, heads, queries = q.shape[:3]
    if batch == 1 and shared is not None:
        return part(q, k, v, shared, mask)
    if not batch:
        return q.new_zeros(*q.shape[:-1], v.shape[-1])
    step = SMALL_BYTES // (heads * queries * k.shape[2] * q.element_size())
    if step >= batch and (shared is not None or not biases):
        return part(q, k, v, shared, mask)
    done = []
    for samples in (slice(*pair) for pair in ranges(batch, step)):
        bias = shared
        if biases and bias is None:
            bias = matrix([each.narrow(samples, slice(None)) for each in biases], None, q.dtype)
        own = mask if mask is None or mask.ndim < 4 else narrowed(mask, samples, slice(None))
        done.append(part(q[samples], k[samples], v[samples], bias, own))
    return torch.cat(done)
