"""Every encoding: name, source, sites, structure, parameters in a ViT-S, kernels."""

from __future__ import annotations

from typing import Any

from rich.table import Table

import visionpe

FUSED = "fused attention"
# What attend() picks for each structure, on a CPU and on a GPU.
KERNELS = {
    "none": (FUSED, FUSED),
    "offset": (f"{FUSED}, rows of the table", f"{FUSED} with a matrix, FlexAttention where large"),
    "low rank": (f"{FUSED}, rows; extra channels in 16 bits", f"{FUSED}, extra channels"),
    "buckets": (f"{FUSED}, gathered rows", f"{FUSED}, gathered rows"),
    "signals": (f"own, by products with the tables; {FUSED}, gathered rows", "the same"),
    "axial": (f"{FUSED} by lines", f"{FUSED} by lines"),
}
OPTIONS: list[dict[str, str]] = [{"name": "manhattan", "form": "axial"}]


def rows() -> list[tuple[str, ...]]:
    """One row an encoding, in the order of the columns."""
    result: list[tuple[str, ...]] = []
    for name in visionpe.list_encodings():
        for option in ({}, *(o for o in OPTIONS if o["name"] == name)):
            spec: dict[str, str] = {"name": name, **option}
            encoding: Any = visionpe.create_encoding(spec, dim=384, num_heads=6, depth=12, grid_size=(14, 14))
            count = sum(p.numel() for p in encoding.parameters())
            options = " ".join(f"{k}={v}" for k, v in option.items() if k != "name")
            label, structure = f"{name} {options}".strip(), encoding.structure
            kernels = KERNELS[structure] if "bias" in encoding.sites() else KERNELS["none"]
            result.append((label, encoding.source, " ".join(encoding.sites()), structure, f"{count:,}", *kernels))
    return result


def table() -> Table:
    """The rows as a table for the console."""
    table = Table()
    for heading in (
        "name",
        "source",
        "sites",
        "structure of the bias",
        "parameters in ViT-S",
        "kernel on CPU",
        "on GPU",
    ):
        table.add_column(heading)
    for row in rows():
        table.add_row(*row)
    return table
