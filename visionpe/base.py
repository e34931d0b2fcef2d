"""The seven places at which a transformer can be told positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from visionpe.attention.bias import Bias
from visionpe.attention.dispatch import AttentionWeights
from visionpe.cache import TableCache
from visionpe.checks import check_count, check_counts
from visionpe.graphs import Unscriptable, one_node
from visionpe.grid import Grid
from visionpe.memo import Carried
from visionpe.policy.grammar import DEFAULT
from visionpe.policy.holder import HasPolicy
from visionpe.ranges import MAX_DEPTH, MAX_DIM, MAX_SIDE, check_factory
from visionpe.tensors import OwnTensors

SITES = ("add", "refine", "rotate", "bias", "value", "output", "mix")
# All that an encoding may override to act in a model.
ACTIONS = (*SITES, "inject", "carry", "logit_factor")


class PositionEncoding(HasPolicy, Unscriptable, OwnTensors):
    """Base of every encoding: seven sites that do nothing unless they are overridden.

    One module serves all blocks of one width and head count (a ViT, or one stage of a pyramid); sites inside the
    blocks are told which block calls by ``layer``. Nothing that depends on the input size is kept in the state dict.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads; divides ``dim``.
        depth: Blocks that this module serves.
        grid_size: Tokens per axis at which the model is or was trained. Resolution policies measure from it.
        policy: What to do at another size: one of ``policies``, the first of which is the default, and any of
            ``modifiers``, joined by ``+``.
        device, dtype: Of the parameters.

    Raises:
        ValueError: If ``dim`` is no multiple of ``num_heads`` or ``policy`` is not one of ``policies``.
    """

    name: ClassVar[str] = ""
    source: ClassVar[str] = ""
    # Of the bias: none, offset, low rank, buckets, or axial, which is another attention.
    structure: str = "none"
    # Parameters that are stored per position, and resized when a checkpoint of another size is loaded.
    resized_on_load: ClassVar[tuple[str, ...]] = ()
    # False where tokens must fill the grid, so that patches cannot be dropped.
    takes_coords: bool = True
    # True where explicit coordinates are read as whole numbers.
    whole_coords: ClassVar[bool] = False
    # True where queries may stand on another grid than keys, as attention has it that pools them.
    takes_pooled: bool = False
    # True where tokens may stand at any real coordinates on three axes: sparse voxels.
    irregular: bool = False
    # Lists of modules that hold one for each block.
    by_block: ClassVar[tuple[str, ...]] = ()
    # Parameters, by a pattern of their names, that hold an entry for each block, and the axis of these.
    stacked: ClassVar[tuple[tuple[str, int], ...]] = ()
    # True for what `one_block` made, in which block 0 stands for the one.
    of_one_block: bool = False
    # True for what stands over another encoding.
    is_wrapper: ClassVar[bool] = False
    # True for what hands on to another encoding what the backbone says of itself.
    hands_on_hints: ClassVar[bool] = False
    # True where queries and keys leave `rotate` wider than they came.
    widens: ClassVar[bool] = False
    # True where `rotate` or `bias` reads the tokens that attention is given, by a keyword of that name.
    reads_tokens: bool = False
    # True where it has a tensor for every token that goes from block to block: the sites ``rotate value output`` and
    # ``carry`` are given it as ``carried``, a :class:`~visionpe.memo.Carried`.
    carries: bool = False
    # True for what is added ahead of every block, that of a later stage of a pyramid too.
    joins_every_block: ClassVar[bool] = False
    # True where attended tokens are taken for a piece of the map, in which neighbours stand side by side.
    reads_neighbours: bool = False

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        depth: int = 1,
        grid_size: Sequence[int] = (14, 14),
        policy: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("dim", dim, 1, MAX_DIM)
        check_count("num_heads", num_heads, 1, MAX_DIM)
        if dim % num_heads:
            raise ValueError(f"dim={dim} is no multiple of num_heads={num_heads}")
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.depth = check_count("depth", depth, 1, MAX_DEPTH)
        self.grid_size = check_counts("grid_size", grid_size, None, 1, MAX_SIDE)
        check_factory(device, dtype)
        self.factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.cache = TableCache()
        self.adopted: dict[str, Any] = {}  # options that loading set, since the file's code has them
        self.policy_is_chosen = policy is not None
        self.policy = self.policies[0] if self.policies else None
        self.mark_as_built()  # what "default" means
        if policy is not None:
            self.set_policy(policy)
            self.mark_as_built()

    @property
    def spelling(self) -> str:
        """How it is written in a specification, with what it stands over: ``"lape(ape)"``."""
        return f"{type(self).name}({self.beneath.spelling})" if self.beneath else self.name

    @property
    def beneath(self) -> PositionEncoding | None:
        """The encoding that this one stands over, or None."""
        over = self._modules.get("over")
        return over if isinstance(over, PositionEncoding) else None

    def set_policy(self, policy: str) -> None:
        super().set_policy(policy)
        self.policy_is_chosen = self.policy_is_chosen or policy != DEFAULT

    def check_axes(self, grid: Grid) -> None:
        """Refuse tokens that stand on another number of axes than the encoding was built for.

        Raises:
            ValueError: Names both.
        """
        if grid.axes != len(self.grid_size):
            raise ValueError(
                f"{type(self).name} was built for {len(self.grid_size)} axes, the tokens stand on {grid.axes}"
            )

    def check_two_axes(self) -> None:
        """Refuse a trained grid of another number of axes.

        Raises:
            ValueError: Names the grid.
        """
        if len(self.grid_size) != 2:
            raise ValueError(f"grid_size={self.grid_size}: {type(self).name} stands on two axes")

    def told(self, tokens: Tensor | None, width: int) -> Tensor:
        """The tokens that attention is given, where an encoding reads them.

        Raises:
            ValueError: If attention does not tell them, or they are not as wide as the encoding was built for.
        """
        if tokens is not None and tokens.shape[-1] != width:
            raise ValueError(
                f"pos_encoding={self.spelling!r} reads tokens of {width} channels, and this attention is given "
                f"{tokens.shape[-1]}; allowed: ViT, ViTDet, Swin, and adapted models of one width"
            )
        if tokens is None:
            raise ValueError(
                f"pos_encoding={self.spelling!r} reads the tokens that attention is given, and this attention does not "
                "tell them; allowed: ViT, ViTDet, Swin, and adapted models of one width"
            )
        return tokens

    def logit_factor(self, grid: Grid) -> float:
        """A factor on all logits that belongs to the policy in force. Default: 1."""
        return 1.0

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        """Adapt what is stored per position to a new nominal grid. Default: nothing is stored per position."""

    def keep_blocks(self, count: int) -> None:
        """Drop the modules of all blocks but the first ``count``, for a model that was cut down to these.

        A parameter that holds something of every block stays whole: some of it has a gradient.
        """
        for name in self.by_block:
            if (modules := getattr(self, name)) is not None:
                setattr(self, name, modules[:count])

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        """What block ``layer`` has beside its tensors: attributes for one that is compiled by itself. Default: none.

        They are tensors, as numbers are constants to the compiler: of what follows from the number of the block, or
        goes on from what the block before it has made. ``x`` are tokens of the block, for their device and dtype.
        """
        return {}

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would pull away from their meaning. Default: all of them."""
        return {name for name, _ in self.named_parameters()}

    @one_node
    def forward(self, site: str, *args: Any, **kwargs: Any) -> Any:
        """One of the sites by name, as backbones call them: so hooks fire, by which other libraries bring weights."""
        if self.of_one_block and site != "add":  # which is told no block; asking for the key would tie a graph to it
            kwargs["layer"] = 0
        return getattr(self, site)(*args, **kwargs)

    # The seven sites. Shapes: tokens (B, N, dim), prefix tokens first; queries, keys, values (B, heads, N, head_dim).

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens after the patch embedding, **without** prefix tokens: ``(B, N_spatial, dim)``."""
        return x

    def inject(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        """The form of ``add`` inside block ``layer``: the normed input of attention alone, prefix tokens included.

        The residual stream and the MLP do not see it.
        """
        return x

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        """Tokens after block ``layer``, prefix tokens included."""
        return x

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        """Queries and keys of block ``layer``."""
        return q, k

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> Bias | None:
        """What is added to the scaled logits of block ``layer``, or None. Queries and keys come unrotated."""
        return None

    def value(self, v: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        """Values of block ``layer``, as attention weighs and sums them. Their width stays."""
        return v

    def output(self, attended: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        """What attention gives in block ``layer``, each query by itself: what ``value`` did is undone here."""
        return attended

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        """Output of attention in block ``layer``, after ``output`` and before the projection.

        ``v`` are the values as they were projected; ``weights`` gives rows of the softmax.
        """
        return attended

    def carry(self, fed: Tensor, grid: Grid, carried: Carried, *, layer: int = 0) -> None:
        """What goes from block ``layer`` to the next beside the tokens, of encodings that carry something.

        Args:
            fed: What the MLP of the block gives, ``(B, N, dim)``, prefix tokens included.
            grid: Where the tokens stand.
            carried: What has been carried, to be replaced.
            layer: The block.
        """

    # What a class overrides, looked up in every block: of the methods above, and `logit_factor`.
    acting: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.acting = frozenset(name for name in ACTIONS if getattr(cls, name) is not getattr(PositionEncoding, name))

    @classmethod
    def sites(cls) -> tuple[str, ...]:
        """The sites that this class overrides; ``inject`` counts as ``add``."""
        return tuple(site for site in SITES if site in cls.acting or (site == "add" and "inject" in cls.acting))

    def extra_repr(self) -> str:
        return f"policy={self.policy!r}" if self.policy else ""
