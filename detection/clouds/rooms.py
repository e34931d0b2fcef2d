"""Labelled rooms of :func:`visionpe.data.rooms.scenes.make_room` as a data set, in memory."""

from __future__ import annotations

from typing import Any, Literal, get_args

from mmengine.registry import DATASETS

from visionpe.data.rooms.scenes import CLASSES, PALETTE, make_room
from visionpe.detection.clouds.dataset import CloudDataset, progress

Split = Literal["train", "val", "test"]

# Far apart, so that no split holds a room of another.
FIRST_SEED = {"train": 0, "val": 1_000_000, "test": 2_000_000}


@DATASETS.register_module()
class RoomsDataset(CloudDataset):
    """Rooms built at the start from their seeds; see :class:`CloudDataset` for what the pipeline receives.

    Args:
        split: ``train``, ``val`` (for choices) or ``test`` (for results); no room is in two of them.
        rooms: How many.
        room: Keywords of ``make_room``: ``points``, ``noise``, ``side``, ...
        **kwargs: Further keywords of mmengine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        ValueError: If ``split`` is unknown, ``rooms`` is out of range, or ``make_room`` refuses a keyword.
    """

    METAINFO = {"classes": CLASSES, "palette": [list(color) for color in PALETTE]}  # noqa: RUF012  mmengine's way

    def __init__(self, split: Split = "train", rooms: int = 50, room: dict[str, Any] | None = None, **kwargs: Any):
        if split not in get_args(Split):
            raise ValueError(f"split={split!r} is unknown; allowed: {', '.join(get_args(Split))}")
        if not 1 <= rooms <= FIRST_SEED["val"]:
            raise ValueError(f"rooms={rooms} is out of range; allowed: 1 to {FIRST_SEED['val']}")
        first = FIRST_SEED[split]
        seeds = progress(range(first, first + rooms), f"Building rooms ({split})", rooms)
        self.clouds = [make_room(seed, **(room or {})) for seed in seeds]
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Return a record a room: its place among ``clouds``."""
        return [{"index": index} for index in range(len(self.clouds))]

    def read(self, record: dict[str, Any]) -> dict[str, Any]:
        """Give one room; colours in 0..255."""
        return {**self.clouds[record["index"]], "name": f"room_{record['index']}"}
