"""What is timed: the core of attention, attention, a block or a whole ViT-S with each encoding, and its peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import timm
import torch
from torch import Tensor, nn

from visionpe import Grid
from visionpe.attention.dispatch import AttentionWeights, attend
from visionpe.benchmarks.options import DEPTH, DIM, HEADS, PATCH
from visionpe.benchmarks.peers import MODELS, attention_peer, difference, model_peer
from visionpe.benchmarks.specs import create
from visionpe.composition import Composition

_numbers = count()


@dataclass(frozen=True)
class Setting:
    """Under what conditions.

    Args:
        level: One of ``LEVELS``.
        pixels: Side of the image; patches of 16.
        batch: Images at a time.
        prefix: Class tokens, at all levels but ``model``, which has one.
        device: Where.
        backward: The gradient too.
        amp: bfloat16 autocast.
        compiled: Through ``torch.compile``.
        kernels: Of :func:`visionpe.attention.attend`, at level ``core``.
        heads: At level ``core``, of 64 channels.
        peers: Measure those too.
    """

    level: str
    pixels: int
    batch: int = 1
    prefix: int = 0
    device: str = "cpu"
    backward: bool = False
    amp: bool = False
    compiled: bool = False
    kernels: tuple[str, ...] = ("auto",)
    heads: int = HEADS
    peers: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Tokens per axis."""
        return (self.pixels // PATCH, self.pixels // PATCH)

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.size[0] * self.size[1] + (1 if self.level == "model" else self.prefix)


@dataclass
class Case:
    """One thing to time.

    Args:
        name: The encoding, with its kernel if that is not ``auto``, or the name of a peer.
        of: The encoding.
        call: Runs it once.
        peer: Whether it is other code.
        difference: Largest difference of its output from ours, or from the first kernel; None if not compared.
    """

    name: str
    of: str
    call: Callable[[], Any]
    peer: bool = False
    difference: float | None = None


class Core(nn.Module):
    """What an encoding does inside attention, ``bias, rotate, value, attend, output, mix``, without linear layers."""

    def __init__(self, encoding: Composition, grid: Grid, kernel: Any = "auto") -> None:
        super().__init__()
        self.encoding, self.grid, self.kernel = encoding, grid, kernel

    def forward(self, qkv: Tensor) -> Tensor:
        """``(B, N, 3, heads, head_dim)``, as a linear layer leaves them, to ``(B, heads, N, head_dim)``."""
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        tokens = qkv[:, :, 0].flatten(2)
        biases = self.encoding.bias(q, k, self.grid, tokens=tokens)
        q, k = self.encoding.rotate(q, k, self.grid, tokens=tokens)
        scale = v.shape[-1] ** -0.5
        told = self.encoding.value(v, self.grid)
        attended = attend(q, k, told, biases=biases, kernel=self.kernel, scale=scale)
        attended = self.encoding.output(attended, self.grid)
        return self.encoding.mix(attended, v, self.grid, weights=AttentionWeights(q, k, biases, scale=scale))


class _Bound(nn.Module):
    """A block or an attention module with its encoding and grid, so that it is a function of the tokens."""

    def __init__(self, module: nn.Module, encoding: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.module, self.encoding, self.grid = module, encoding, grid

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x, self.encoding, self.grid)


def _compiled(module: nn.Module) -> Any:
    def forward(x: Tensor) -> Tensor:
        return module(x)

    # Graphs are kept by code object: with a shared one, each case would search through those of all others.
    forward.__code__ = forward.__code__.replace(co_name=f"forward_{next(_numbers)}")
    return torch.compile(forward, fullgraph=True)


def _call(module: nn.Module, x: Tensor, setting: Setting) -> Callable[[], Any]:
    ready = _compiled(module) if setting.compiled else module
    leaves = [x, *module.parameters()]

    def call() -> Any:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=setting.amp):
            out = ready(x)
        if setting.backward:
            out.backward(torch.ones_like(out))
            for leaf in leaves:
                leaf.grad = None
        return out

    return call if setting.backward else torch.inference_mode()(call)


@torch.no_grad()
def _drawn(encoding: Composition) -> Composition:
    """Tables that are zero at first, drawn: a difference from a peer would not show in them."""
    for parameter in encoding.parameters():
        if not parameter.any():
            parameter.normal_(std=0.5)
    return encoding.eval()


def _cores(spec: str, setting: Setting, grid: Grid, device: torch.device) -> list[Case]:
    encoding = _drawn(create(spec, heads=setting.heads, grid_size=setting.size)).to(device)
    shape = (setting.batch, grid.num_tokens, 3, setting.heads, DIM // HEADS)
    qkv = torch.randn(shape, device=device, requires_grad=setting.backward)
    cases: list[Case] = []
    first = None
    for kernel in setting.kernels if spec != "none" else ("auto",):
        module = Core(encoding, grid, kernel)
        name = spec if kernel == "auto" else f"{spec} [{kernel}]"
        case = Case(name, spec, _call(module, qkv, setting))
        if len(setting.kernels) > 1 and spec != "none":
            with torch.no_grad():
                out = module(qkv)
            first = out if first is None else first
            case.difference = (out - first).abs().max().item()
        cases.append(case)
    return cases


def build(spec: str, setting: Setting) -> list[Case]:
    """The cases of one encoding: ours, one for each kernel, and the peer if there is one.

    Args:
        spec: See :func:`~visionpe.specification.parse_spec`.
        setting: Under what conditions.

    Raises:
        visionpe.benchmarks.peers.MismatchError: If a peer gives another output.
    """
    torch.manual_seed(0)
    device, pixels = torch.device(setting.device), setting.pixels
    grid = Grid(setting.size, prefix=setting.prefix)
    if setting.level == "core":
        return _cores(spec, setting, grid, device)
    depth = DEPTH if setting.level == "model" else 1
    options = {"pos_encoding": spec, "img_size": pixels, "init_values": 1.0, "depth": depth}
    model = timm.create_model("none_vit_s", **options).eval()
    encoding: Any = _drawn(model.pos_encoding)
    ours: nn.Module = model
    peers: dict[str, nn.Module] = {}
    if setting.level == "model":
        peers = model_peer(spec, model, pixels) if setting.peers else {}
        x = torch.randn(setting.batch, 3, pixels, pixels, device=device)
    else:
        inner = model.blocks[0].attn if setting.level == "attention" else model.blocks[0]
        if setting.level == "attention" and setting.peers and not setting.prefix and len(encoding.parts) == 1:
            peers = attention_peer(spec, inner, encoding.parts[0], setting.size)
        ours = _Bound(inner, encoding, grid)
        x = torch.randn(setting.batch, grid.num_tokens, DIM, device=device, requires_grad=setting.backward)
    cases = [Case(spec, spec, _call(ours.to(device), x, setting))]
    for name, peer in peers.items():
        same = setting.level != "model" or MODELS[spec][1]
        found = difference(spec, name, ours, peer.to(device), x) if same else None
        cases.append(Case(name, spec, _call(peer, x, setting), peer=True, difference=found))
    return cases
