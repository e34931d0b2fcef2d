"""What is timed: attention, a block or a whole ViT-S with each encoding, and timm's model of the same kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from visionpe import Grid

LEVELS = ("attention", "block", "model")
# timm's models that do the same; "same weights" where ours loads theirs and must give the same output.
PEERS = {
    "ape": "deit3_small_patch16_224",
    "rope_axial": "vit_small_patch16_rope_224",
    "rope_mixed": "vit_small_patch16_rope_mixed_224",
    "rope_mixed+ape": "vit_small_patch16_rope_mixed_ape_224",
    "rpb": "vit_relpos_small_patch16_224",
}
LOADS = ("ape", "rope_axial", "rope_mixed", "rope_mixed+ape")


@dataclass
class Case:
    """One thing to time.

    Args:
        name: The encoding, or ``timm <model>`` for a peer.
        call: Runs it once.
        of: The encoding that a peer is compared with, else the name.
        difference: Largest difference between the outputs of a peer and ours with the same weights, or None.
    """

    name: str
    call: Callable[[], Any]
    of: str
    difference: float | None = None


def _wrap(module: nn.Module, inputs: tuple, *, backward: bool, autocast: bool) -> Callable[[], Any]:
    leaf = inputs[0]

    def call() -> Any:
        with torch.autocast(leaf.device.type, torch.bfloat16, enabled=autocast):
            out = module(*inputs)
        if not backward:
            return out
        module.zero_grad(set_to_none=True)
        out.sum().backward()
        return out

    return call if backward else torch.inference_mode()(call)


class _Bound(nn.Module):
    """A block or an attention module with its encoding and grid, so that it is a function of the tokens."""

    def __init__(self, module: nn.Module, model: Any, grid: Grid) -> None:
        super().__init__()
        self.module, self.encoding, self.grid = module, model.pos_encoding, grid

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x, self.encoding, self.grid)


def build(
    spec: str, *, level: str, size: int, batch: int, device: torch.device, backward: bool, amp: bool, compiled: bool
) -> list[Case]:
    """The case of one encoding, and that of its peer in timm where there is one (whole models only).

    Args:
        spec: Of the encoding.
        level: ``attention``, ``block`` or ``model``.
        size: Side of the image, pixels; patches of 16.
        batch: Images at a time.
        device: Where to run.
        backward: Time the gradient too.
        amp: bfloat16 autocast.
        compiled: Through ``torch.compile``.
    """
    torch.manual_seed(0)
    keywords: dict[str, Any] = {"img_size": size, "init_values": 1.0}
    model = timm.create_model("none_vit_s", pos_encoding=spec, **keywords).to(device).train(backward)
    if level == "model":
        x = torch.randn(batch, 3, size, size, device=device)
        modules: dict[str, nn.Module] = {spec: model}
        if spec in PEERS:
            peer = timm.create_model(PEERS[spec], img_size=size, init_values=1.0).to(device).train(backward)
            modules[f"timm {PEERS[spec]}"] = peer
            if spec in LOADS:
                model.load_state_dict(peer.state_dict())
    else:
        grid = Grid((size // 16, size // 16), prefix=1)
        x = torch.randn(batch, grid.num_tokens, model.embed_dim, device=device, requires_grad=backward)
        inner = model.blocks[0].attn if level == "attention" else model.blocks[0]
        modules = {spec: _Bound(inner, model, grid)}
    difference = None
    if len(modules) == 2 and spec in LOADS:
        with torch.no_grad():
            ours, theirs = (module(x) for module in modules.values())
        difference = (ours - theirs).abs().max().item()
    cases = []
    for name, module in modules.items():
        ready: Any = torch.compile(module) if compiled else module
        call = _wrap(ready, (x,), backward=backward, autocast=amp)
        cases.append(Case(name, call, spec, None if name == spec else difference))
    return cases
