"""What data sets of labelled point clouds have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from numpy.typing import NDArray

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Go through ``items`` under a progress bar, on the first process alone.

    Args:
        items: What to go through.
        what: Stands ahead of the bar.
        total: How many there are.
    """
    from rich.console import Console
    from rich.progress import track

    # Standard error, as the log of a run.
    yield from track(items, what, total, console=Console(stderr=True, markup=False), disable=not is_main_process())


# Metres from the origin beyond which float32 is coarser than a tenth of a millimetre.
FAR = 1000.0


def near_origin(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points as float32; of a cloud far from the origin, from its corner: UTM coordinates have steps of half a metre.

    Args:
        points: ``(P, 3)`` or more columns, of which the first three are x y z; metres.
    """
    if np.abs(points[:, :3]).max(initial=0) > FAR:
        points = points.astype(np.float64)
        points[:, :3] -= points[:, :3].min(0)
    return points.astype(np.float32)


class CloudDataset(BaseDataset):
    """Labelled clouds for a pipeline of cloud transforms.

    A subclass lists its clouds in ``load_data_list`` and reads one in :meth:`read`. The pipeline receives ``points``
    ``(P, 3)`` float32 in metres with z up, ``colors`` ``(P, 3)`` float32 in -1..1, ``labels`` ``(P,)`` int64, ``name``,
    and ``normals`` ``(P, 3)`` float32 of length 1 where the data have them.

    Args:
        **kwargs: Keywords of mmengine's ``BaseDataset``: ``data_root``, ``pipeline``, ``indices``, ``test_mode``, ...
    """

    def __init__(self, **kwargs: Any) -> None:
        # To pickle a few hundred file names saves nothing, and its gc.collect() takes longer than all the rest.
        super().__init__(**{"serialize_data": False, **kwargs})

    @abstractmethod
    def read(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read one cloud.

        Args:
            record: What ``load_data_list`` says of it.

        Returns:
            ``points``, ``colors`` in 0..255, ``labels``, ``name`` and perhaps ``normals``.
        """

    def prepare_data(self, idx: int) -> Any:
        """Read cloud ``idx`` and run the pipeline on it.

        Args:
            idx: 0 to ``len(self) - 1``.

        Returns:
            What the pipeline returns: after ``PackCloud`` a dict of ``inputs`` and ``data_samples``.
        """
        cloud = self.read(self.get_data_info(idx))
        cloud["points"] = near_origin(np.asarray(cloud["points"]))
        cloud["colors"] = np.asarray(cloud["colors"], np.float32) / np.float32(127.5) - 1
        return self.pipeline({**cloud, "sample_idx": idx})
