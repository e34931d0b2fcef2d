"""The table of what a cloud cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from visionpe.detection.clouds.scan import CloudResult
from visionpe.viewing.clouds.cloud import UNKNOWN


def rows(outcome: CloudResult) -> list[tuple[str, str, str, float]]:
    """Part, voxels, channels and seconds, in order; then the sums."""
    seconds = outcome.seconds
    parts = list(outcome.watch.parts.values()) if outcome.watch else []
    lines = [("voxelise", f"{outcome.voxels:,}", "", seconds["voxelise"])]
    for part in parts:
        shape = [f"{part.shape[0]:,}", str(part.shape[1])] if len(part.shape) == 2 else ["", ""]
        lines.append((part.name, shape[0], shape[1], part.seconds))
    timed = sum(part.seconds for part in parts)
    lines.append(("between the parts", "", "", max(seconds["model"] - timed, 0.0)))
    lines.append(("back to points", f"{outcome.cloud.count:,}", "", seconds["back to points"]))
    decoder = sum(part.seconds for part in parts if part.decoder)
    lines.append(("encoder", "", "", timed - decoder))
    lines.append(("decoder and head", "", "", decoder))
    lines.append(("total", "", "", sum(seconds.values())))
    return lines


def show(console: Console, outcome: CloudResult, peak: float | None) -> None:
    """Print times, memory, and where there are labels how many points are right.

    Args:
        console: Where to.
        outcome: Of :func:`visionpe.detection.clouds.scan.process`.
        peak: Bytes above what was in use before; None where that cannot be known.
    """
    table = Table(title=f"{outcome.cloud.name}: {outcome.cloud.count:,} points, {outcome.voxels:,} voxels")
    for name in ("part", "voxels", "channels", "seconds"):
        table.add_column(name, justify="left" if name == "part" else "right")
    lines = rows(outcome)
    for i, (name, voxels, channels, seconds) in enumerate(lines):
        table.add_row(name, voxels, channels, f"{seconds:.3f}", end_section=i == len(lines) - 4)
    console.print(table)
    if peak is not None:
        console.print(f"peak memory {peak / 2**20:,.0f} MB above what was in use before", highlight=False)
    cloud = outcome.cloud
    if cloud.labels is not None and cloud.predictions is not None:
        known = cloud.labels != UNKNOWN
        if known.any():
            right = 100 * float((cloud.labels == cloud.predictions)[known].mean())
            console.print(f"right: {right:.1f} % of {int(known.sum()):,} labelled points", highlight=False)
