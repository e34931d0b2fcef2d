"""Print every encoding: name, source, sites, structure, parameters in a ViT-S, kernel."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

import visionpe

KERNELS = {
    "none": "fused attention, no matrix",
    "offset": "fused attention with a matrix, in chunks where it is large",
    "low rank": "fused attention with extra channels, no matrix",
    "buckets": "products with a small table, gathered, in chunks where large",
}


def rows() -> list[tuple[str, str, str, str, str, str]]:
    """One row an encoding, in the order of the columns."""
    result = []
    for name in visionpe.list_encodings():
        cls = visionpe.get_encoding(name)
        encoding = visionpe.create_encoding(name, dim=384, num_heads=6, depth=12, grid_size=(14, 14))
        count = sum(p.numel() for p in encoding.parameters())
        structure = cls.structure
        result.append((name, cls.source, " ".join(cls.sites()), structure, f"{count:,}", KERNELS[structure]))
    return result


def main() -> None:
    """Print the table."""
    table = Table()
    for heading in ("name", "source", "sites", "structure of the bias", "parameters in a ViT-S", "kernel"):
        table.add_column(heading)
    for row in rows():
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=180)).print(table)


if __name__ == "__main__":
    main()
