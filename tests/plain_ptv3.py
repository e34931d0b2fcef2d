"""Point Transformer V3 once more, written from its paper and key names: loops over voxels, dense logits, float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Cell = tuple[int, ...]


def along(curve: str, cell: Sequence[int], bits: int) -> int:
    """Where a cell comes on a curve, by descending into cubes of half the side."""
    x, y, z = cell
    if curve.endswith("-trans"):
        x, y = y, x
    if curve.startswith("z"):
        return sum(((n >> b) & 1) << (3 * b + turn) for turn, n in enumerate((z, y, x)) for b in range(bits))
    axes = [x, y, z]
    for bit in range(bits - 1, -1, -1):
        low = 2**bit - 1
        for i in range(3):
            if axes[i] >> bit & 1:
                axes[0] ^= low
            else:
                swap = (axes[0] ^ axes[i]) & low
                axes[0] ^= swap
                axes[i] ^= swap
    place, parity = 0, 0
    for bit in range(bits - 1, -1, -1):
        for axis in axes:
            parity ^= axis >> bit & 1
            place = 2 * place + parity
    return place


class PlainPTv3:
    """The published model with a state dict of its own keys.

    Args:
        state: ``embedding.stem.conv.weight`` and so on.
        settings: ``orders strides heads patch decoder_heads form rpe``.
    """

    def __init__(self, state: Mapping[str, Tensor], **settings: Any) -> None:
        self.state = {key: value.double() for key, value in state.items()}
        self.settings = settings

    def linear(self, x: Tensor, key: str) -> Tensor:
        return F.linear(x, self.state[f"{key}.weight"], self.state.get(f"{key}.bias"))

    def norm(self, x: Tensor, key: str, *, batch: bool) -> Tensor:
        weight, bias = self.state[f"{key}.weight"], self.state[f"{key}.bias"]
        if not batch:
            return F.layer_norm(x, weight.shape, weight, bias, 1e-5)
        return F.batch_norm(x, *(self.state[f"{key}.running_{n}"] for n in ("mean", "var")), weight, bias, eps=1e-3)

    def convolve(self, x: Tensor, cells: list[Cell], key: str) -> Tensor:
        weight, bias = self.state[f"{key}.weight"], self.state.get(f"{key}.bias")
        reach, where = weight.shape[1] // 2, {cell: row for row, cell in enumerate(cells)}
        out = []
        for cloud, *at in cells:
            total = torch.zeros(weight.shape[0], dtype=x.dtype) if bias is None else bias
            for step in torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * 3).tolist():
                row = where.get((cloud, *(a + s for a, s in zip(at, step))))
                if row is not None:
                    total = total + weight[:, step[0] + reach, step[1] + reach, step[2] + reach] @ x[row]
            out.append(total)
        return torch.stack(out)

    def attention(
        self, x: Tensor, cells: list[Cell], key: str, heads: int, patch: int, curve: str, bits: int
    ) -> Tensor:
        q, k, v = self.linear(x, f"{key}.qkv").unflatten(-1, (3, heads, -1)).unbind(1)
        out = torch.zeros_like(q)
        for cloud in {cell[0] for cell in cells}:
            line = sorted(
                (i for i, c in enumerate(cells) if c[0] == cloud), key=lambda i: along(curve, cells[i][1:], bits)
            )
            size = min(patch, len(line))
            for first in range(0, len(line), size):
                own = line[first : first + size]
                keys = own if len(own) == size else line[-size:]
                for i in own:
                    for h in range(heads):
                        logits = torch.stack([q[i, h] @ k[j, h] for j in keys]) * q.shape[-1] ** -0.5
                        if self.settings["rpe"]:
                            logits = logits + torch.stack([self.bias(key, cells[i], cells[j], h) for j in keys])
                        out[i, h] = sum(w * v[j, h] for w, j in zip(logits.softmax(0), keys))
        return self.linear(out.flatten(1), f"{key}.proj")

    def bias(self, key: str, query: Cell, other: Cell, head: int) -> Tensor:
        table = self.state[f"{key}.rpe.rpe_table"]
        rows = len(table) // 3
        reach = (rows - 1) // 2
        offsets = [max(-reach, min(reach, a - b)) for a, b in zip(query[1:], other[1:])]
        return sum(table[axis * rows + d + reach, head] for axis, d in enumerate(offsets))  # type: ignore[return-value]

    def block(self, x: Tensor, seen: Tensor, cells: list[Cell], key: str, *attention: Any) -> Tensor:
        told = self.linear(self.convolve(seen, cells, f"{key}.cpe.0"), f"{key}.cpe.1")
        x = x + self.norm(told, f"{key}.cpe.2", batch=False)
        attended = self.attention(self.norm(x, f"{key}.norm1.0", batch=False), cells, f"{key}.attn", *attention)
        x = x + attended * self.state.get(f"{key}.ls1.0.gamma", 1)
        hidden = F.gelu(self.linear(self.norm(x, f"{key}.norm2.0", batch=False), f"{key}.mlp.0.fc1"))
        return x + self.linear(hidden, f"{key}.mlp.0.fc2") * self.state.get(f"{key}.ls2.0.gamma", 1)

    def stage(self, x: Tensor, seen: Tensor, cells: list[Cell], key: str, heads: int, patch: int, bits: int) -> Tensor:
        depth = len({k.split(".")[2] for k in self.state if k.startswith(f"{key}.block")})
        for i in range(depth):
            curve = self.settings["orders"][i % len(self.settings["orders"])]
            x = self.block(x, x if i else seen, cells, f"{key}.block{i}", heads, patch, curve, bits)
        return x

    def __call__(self, features: Tensor, coords: Tensor) -> Tensor:
        """``(N, dim)`` and ``(N, 4)`` to the features of the decoder."""
        s, batch = self.settings, self.settings["form"] == "conv"
        cells: list[Cell] = [tuple(row) for row in coords.tolist()]
        stem = "embedding.stem"
        x = self.convolve(features, cells, f"{stem}.conv") if batch else self.linear(features, f"{stem}.linear")
        x = F.gelu(self.norm(x, f"{stem}.norm", batch=batch))
        bits, levels = (int(coords[:, 1:].max()) + 1).bit_length(), []
        for i, heads in enumerate(s["heads"]):
            if i:
                stride = s["strides"][i - 1]
                parents = [(cell[0], *(n // stride for n in cell[1:])) for cell in cells]
                coarse = sorted(set(parents))
                levels.append((x, cells, bits, [coarse.index(parent) for parent in parents]))
                y = self.linear(x, f"enc.enc{i}.down.proj")
                x = torch.stack([y[[p == c for p in parents]].amax(0) for c in coarse])
                x, cells = F.gelu(self.norm(x, f"enc.enc{i}.down.norm.0", batch=batch)), coarse
                largest = max(max(cell[1:]) for cell in cells)
                bits = bits - stride.bit_length() + 1 if batch else (largest + 1).bit_length()
            x = self.stage(x, x, cells, f"enc.enc{i}", heads, s["patch"], bits)
        for i in reversed(range(len(levels))):
            skip, cells, bits, parent = levels[i]
            up, beside = f"dec.dec{i}.up.proj", f"dec.dec{i}.up.proj_skip"
            x = F.gelu(self.norm(self.linear(x, f"{up}.0"), f"{up}.1", batch=batch))[parent]
            skip = F.gelu(self.norm(self.linear(skip, f"{beside}.0"), f"{beside}.1", batch=batch))
            x = self.stage(
                x + skip, skip if batch else x + skip, cells, f"dec.dec{i}", s["decoder_heads"][i], s["patch"], bits
            )
        return x


def published_state(model: Any, table: bool) -> dict[str, Tensor]:
    """Weights of one of our U-Nets under the published keys."""
    out: dict[str, Tensor] = {}
    depth = len(model.decoder)
    for key, value in model.state_dict().items():
        parts = key.split(".")
        where = {"stages": lambda n: f"enc.enc{n}", "decoder": lambda n: f"dec.dec{depth - 1 - int(n)}"}.get(parts[0])
        place = where(parts[1]) if where else ""
        rest = ".".join(parts[2:])
        if key.endswith("kernel"):  # (width ** 3, dim, dim_out), the first axis fastest
            side = round(len(value) ** (1 / 3))
            value = value.unflatten(0, (side, side, side)).permute(4, 2, 1, 0, 3)
        if parts[0] == "stem":
            layer = ("conv" if model.form == "conv" else "linear") if parts[1] == "proj" else "norm"
            out[f"embedding.stem.{layer}.{parts[2].replace('kernel', 'weight')}"] = value
        elif parts[0] == "classifier":
            out[f"seg_head.{parts[1]}"] = value
        elif rest.startswith("change."):
            name = rest.removeprefix("change.").replace("norm.", "norm.0.") if "enc" in place else rest[7:]
            out[f"{place}.{'down' if 'enc' in place else 'up'}.{name}"] = value
        elif "xcpe" in key:
            block, layer, name = parts[-3], parts[-2], parts[-1].replace("kernel", "weight")
            out[f"{place}.block{block}.cpe.{('conv', 'linear', 'norm').index(layer)}.{name}"] = value
        elif "rpb_axes" in key:
            for block, one in enumerate(value):
                out[f"{place}.block{block}.attn.rpe.rpe_table"] = one.flatten(0, 1)
        else:
            name = rest.removeprefix(f"blocks.{parts[3]}.")
            for inner in ("norm1", "norm2", "mlp", "ls1", "ls2"):
                name = name.replace(f"{inner}.", f"{inner}.0.")
            out[f"{place}.block{parts[3]}.{name}"] = value
    assert table == any("rpe_table" in key for key in out)
    return out
