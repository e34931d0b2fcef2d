"""Attention of a model, looked at while it runs: what a token attends to, rollout, how far heads reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from visionpe import Composition, Grid
from visionpe.attention.axial import axial_bias
from visionpe.attention.dispatch import AttentionWeights
from visionpe.viewing.modes import evaluating

# A prefix token by its number, 0 for the class token, or a patch by its row and column.
Token = int | tuple[int, int]


@contextmanager
def watch_attention(model: nn.Module, see: Callable[[AttentionWeights | None, Grid], None]) -> Iterator[None]:
    """Call ``see(weights, grid)`` in every attention of the forward passes inside, in their order.

    Args:
        model: Any; of one that holds no :class:`visionpe.Composition` nothing is seen.
        see: Weights are worked out when they are asked for; None for an attention that has none of all pairs.
    """

    def watch(encoding: Composition) -> Any:
        original = encoding.mix

        def mix(
            attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
        ) -> Tensor:
            see(weights, grid)
            return original(attended, v, grid, layer=layer, weights=weights)

        return mix

    watched = [module for module in model.modules() if isinstance(module, Composition)]
    for encoding in watched:
        encoding.__dict__["mix"] = watch(encoding)
    try:
        yield
    finally:
        for encoding in watched:
            del encoding.__dict__["mix"]


def in_full(weights: AttentionWeights) -> AttentionWeights:
    """In float32: under autocast queries may be in half precision, in which small weights vanish."""
    return replace(weights, q=weights.q.float(), k=weights.k.float())


@dataclass(frozen=True)
class AttentionLayer:
    """One attention of a forward pass, ``N`` tokens long. What is asked of it is worked out then.

    Attributes:
        weights: Of queries over keys.
        grid: Where the tokens stand.
        windows: Windows an image is cut into; 1 for attention of the whole map.
    """

    weights: AttentionWeights
    grid: Grid
    windows: int = 1

    @property
    def heads(self) -> int:
        return self.weights.q.shape[1]

    @property
    def query_size(self) -> tuple[int, ...]:
        """Queries per axis, which pooling makes others than keys."""
        return self.grid.size if self.grid.queries is None else self.grid.queries

    def index(self, token: Token) -> int:
        """The place of a token in the sequence of queries.

        Raises:
            ValueError: Names ``token``, if there is none such, or attention is within windows or among some patches.
        """
        if self.windows > 1 or not self.grid.dense:
            what = f"{self.windows} windows" if self.windows > 1 else "some of the patches"
            raise ValueError(
                f"token={token!r}: attention is within {what}; allowed: layers that attend to the whole map"
            )
        prefix, size = self.grid.prefix, self.query_size
        if isinstance(token, int):
            if not 0 <= token < prefix:
                raise ValueError(f"token={token!r}: there are {prefix} prefix tokens; allowed: 0 up, or (row, column)")
            return token
        if len(token) != len(size) or not all(0 <= place < n for place, n in zip(token, size)):
            raise ValueError(f"token={token!r} is no patch; allowed: (row, column) in {' x '.join(map(str, size))}")
        place = 0
        for at, n in zip(token, size):
            place = place * n + at
        return prefix + place

    def of(self, token: Token) -> tuple[Tensor, Tensor]:
        """What a token attends to.

        Args:
            token: The number of a prefix token (0 is the class token), or a patch, ``(row, column)``.

        Returns:
            The map, ``(B, heads, height, width)``, and the weights of the prefix tokens, ``(B, heads, prefix)``; the
            sum of both is 1.

        Raises:
            ValueError: See :meth:`index`.
        """
        at = self.index(token)
        row = self.weights.rows(at, at + 1)[:, :, 0]  # (B, heads, N)
        return row[..., self.grid.prefix :].unflatten(-1, self.grid.size), row[..., : self.grid.prefix]

    def spread(self) -> tuple[Tensor, Tensor]:
        """How widely each head spreads, and how far it reaches, means over images, windows and queries.

        Worked out for some queries at a time, so that memory is linear in the tokens.

        Returns:
            ``(heads,)`` each: the entropy of the weights in nats, prefix tokens counted among queries and keys, 0 to
            ``log(N)``; and the distance from query to key expected under the weights (Dosovitskiy et al., appendix
            D.7), in patches of this layer, over patches alone, whose weights are scaled up to a sum of one (0 where a
            query gives them nothing).

        Raises:
            ValueError: If weights are mixed across heads, which may be below 0.
        """
        if not self.weights.distribution:
            raise ValueError("the weights of heads that were mixed are no distribution")
        prefix, device = self.grid.prefix, self.weights.q.device
        queries, keys = (p if p.ndim == 2 else p[:, None] for p in self.grid.query_and_key_positions(device=device))
        entropy, distance = torch.zeros(2, self.heads, dtype=torch.float64, device=device)
        entropies = distances = 0
        for start, stop in self.weights.chunks():
            rows = self.weights.rows(start, stop)  # (B, heads, n, N)
            entropy += torch.special.entr(rows).sum(-1).double().sum((0, 2))
            entropies += rows.shape[0] * rows.shape[2]
            if stop <= prefix:
                continue
            first = max(start - prefix, 0)
            rows = rows[:, :, max(prefix - start, 0) :, prefix:]  # (B, heads, patches of the queries, patches)
            away = torch.cdist(queries[..., first : stop - prefix, :], keys)
            mean = (rows * away).sum(-1) / rows.sum(-1).clamp_min(torch.finfo(rows.dtype).tiny)
            distance += mean.double().sum((0, 2))
            distances += mean.shape[0] * mean.shape[2]
        return (entropy / entropies).float(), (distance / max(distances, 1)).float()

    def step_back(self, share: Tensor, residual: float) -> Tensor:
        """``share @ (residual I + (1 - residual) A)`` with the mean ``A`` over heads, for rows ``(B, M, N)``."""
        attended = torch.zeros_like(share)
        for start, stop in self.weights.chunks():
            rows = self.weights.rows(start, stop).mean(1)  # (B, n, N)
            attended += share[..., start:stop] @ rows
        return residual * share + (1 - residual) * attended


@torch.no_grad()
def attention_layers(model: nn.Module, images: Tensor) -> list[AttentionLayer]:
    """Every attention of one forward pass, first to last.

    Queries and keys are kept, and no weights: memory is linear in the tokens.

    Args:
        model: One of this package, or one of timm's, :func:`adapted <visionpe.backbones.adapt.adapt>`. It runs in
            evaluation mode and is left as it was.
        images: ``(B, C, height, width)``, normalised, where the model is.

    Returns:
        One for each attention; two for a block that cuts the map in two ways.

    Raises:
        ValueError: If nothing is seen of the model, or one of its attentions has no weights of all pairs.
    """
    layers: list[AttentionLayer] = []

    def see(weights: AttentionWeights | None, grid: Grid) -> None:
        if weights is None or axial_bias(weights.biases, weights.mask) is not None:
            raise ValueError("model: an attention along the axes has no weights of all pairs; allowed: other encodings")
        layers.append(AttentionLayer(in_full(weights), grid, max(1, weights.q.shape[0] // len(images))))

    with evaluating(model), watch_attention(model, see):
        model(images)
    if not layers:
        raise ValueError(
            f"model={type(model).__name__}: nothing is seen of its attention; allowed: models of this package, or "
            "those of timm that visionpe.backbones.adapt.adapt takes"
        )
    return layers


def attention_rollout(
    layers: Sequence[AttentionLayer], tokens: Sequence[Token], *, residual: float = 0.5
) -> tuple[Tensor, Tensor]:
    """What of the input tokens hold after the last layer, if attention and skip connections were all there is.

    Attention rollout (Abnar and Zuidema, arXiv 2005.00928, section 3): the product over layers of ``0.5 I + 0.5 A``,
    ``A`` the mean over heads; some rows of it, from the last layer back, so that memory is linear in the tokens.

    Args:
        layers: Of :func:`attention_layers`, or the first few of them.
        tokens: M of them, each as in :meth:`AttentionLayer.of`.
        residual: Share of the skip connections, 0 to 1.

    Returns:
        The maps, ``(B, M, height, width)``, and the shares of the prefix tokens, ``(B, M, prefix)``; both add up to 1.

    Raises:
        ValueError: If ``layers`` are none, are of windows or other maps, or have weights that are no distribution;
            if ``residual`` is no share; see :meth:`AttentionLayer.index`.
    """
    if not layers:
        raise ValueError("layers=[]: nothing to roll out; allowed: one layer or more")
    if not 0 <= residual <= 1:
        raise ValueError(f"residual={residual!r} is no share; allowed: 0 to 1")
    last = layers[-1]
    for number, layer in enumerate(layers):
        if layer.windows > 1 or layer.grid.queries is not None or layer.grid.size != last.grid.size:
            raise ValueError(f"layers[{number}] attends in windows, or on another map; allowed: all on one whole map")
        if not layer.weights.distribution:
            raise ValueError(f"layers[{number}] mixes heads: its weights are no distribution; allowed: others")
    q, count = last.weights.q, last.grid.num_tokens
    share = torch.zeros(q.shape[0], len(tokens), count, device=q.device)
    share[:, range(len(tokens)), [last.index(token) for token in tokens]] = 1
    for layer in reversed(layers):
        share = layer.step_back(share, residual)
    return share[..., last.grid.prefix :].unflatten(-1, last.grid.size), share[..., : last.grid.prefix]
