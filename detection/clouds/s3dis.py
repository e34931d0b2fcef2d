"""S3DIS: six areas of indoor scans, read from the released text files (https://arxiv.org/abs/1702.01105)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from visionpe.detection.clouds.dataset import CloudDataset, near_origin, progress
from visionpe.utils.errors import InputError, MissingFileError, first_line
from visionpe.utils.files import replacing

Split = Literal["train", "test"]

CLASSES = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door",
    "table", "chair", "sofa", "bookcase", "board", "clutter",
)  # fmt: skip
PALETTE = [
    [0, 255, 0], [0, 0, 255], [0, 255, 255], [255, 255, 0], [255, 0, 255], [100, 100, 255], [200, 200, 100],
    [170, 120, 200], [255, 0, 0], [200, 100, 100], [10, 200, 100], [200, 200, 200], [50, 50, 50],
]  # fmt: skip
AREAS = (1, 2, 3, 4, 5, 6)
COLUMNS = 6  # x y z r g b
NUMBERS = b"0123456789+-.eE \t\r\n"
# Bytes that stand in the release by mistake: no letter, no sign that could mean something.
STRAY = bytes(range(9)) + b"\x0b\x0c" + bytes(range(14, 32)) + bytes(range(127, 256))


def _repaired(line: bytes, file: Path, number: int) -> bytes:
    """A line in which a stray byte stands between two numbers or inside of one."""
    for fixed in (line.translate(bytes.maketrans(STRAY, b" " * len(STRAY))), line.translate(None, STRAY)):
        if len(fixed.split()) == COLUMNS:
            return fixed
    raise _refusal(file, number, line)


def _refusal(file: Path, number: int, line: bytes) -> InputError:
    hint = "; numbers have a decimal point, and spaces between them" if b"," in line else ""
    return InputError(f"{file}, line {number}: {line.strip()[:80]!r} must hold six numbers, x y z r g b{hint}")


def _first_bad(lines: list[bytes], file: Path) -> InputError:
    """The error for the first line that does not hold six numbers."""
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            np.array(words, float)
        except ValueError:
            return _refusal(file, number, line)
        if len(words) not in (0, COLUMNS):
            return _refusal(file, number, line)
    return InputError(f"{file}: must hold six numbers a line, x y z r g b")


def read_points(file: Path) -> NDArray[np.float64]:
    """Read a text file of points.

    The release has stray control bytes in Area_5 (office_19 and hallway_6, ``ceiling_1.txt``); they are mended here.

    Args:
        file: A line a point: ``x y z r g b``, metres and 0..255.

    Returns:
        ``(P, 6)``.

    Raises:
        InputError: If a line does not hold six numbers, or colours beyond 0..255; names the file and the line.
    """
    content = file.read_bytes()
    if content.translate(None, NUMBERS):
        lines = content.split(b"\n")
        damaged = (number for number, line in enumerate(lines) if line.translate(None, NUMBERS))
        for number in damaged:
            lines[number] = _repaired(lines[number], file, number + 1)
        content = b"\n".join(lines)
    if not content.strip():
        return np.zeros((0, COLUMNS))
    try:
        points = np.loadtxt(io.BytesIO(content), dtype=np.float64, ndmin=2, comments=None)
    except ValueError:
        raise _first_bad(content.split(b"\n"), file) from None
    if points.shape[1] != COLUMNS:
        raise InputError(f"{file} has {points.shape[1]} columns; it must have six, x y z r g b")
    bad = ~np.isfinite(points).all(1) | (points[:, 3:] < 0).any(1) | (points[:, 3:] > 255).any(1)
    if bad.any():
        filled = [number for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
        row = int(bad.argmax())
        raise InputError(
            f"{file}, line {filled[row]}: {points[row].tolist()}; allowed: finite x y z, and r g b in 0 to 255"
        )
    return points


def read_room(folder: Path) -> NDArray[np.float32]:
    """Read a room object by object.

    Args:
        folder: With ``Annotations/<class>_<number>.txt``.

    Returns:
        ``(P, 7)``: x y z in metres, r g b in 0..255, class. Objects of other classes (``stairs``) are clutter.

    Raises:
        InputError: If there is no point, or a file is damaged beyond repair.
    """
    parts = []
    for file in sorted(folder.glob("Annotations/*.txt")):
        if file.name.startswith("."):  # what macOS leaves in archives
            continue
        points = read_points(file)
        name = file.stem.split("_")[0].lower()
        label = CLASSES.index(name) if name in CLASSES else CLASSES.index("clutter")
        parts.append(np.column_stack((points, np.full(len(points), label))))
    if not sum(len(part) for part in parts):
        raise InputError(f"{folder / 'Annotations'} holds no points; expected <class>_<number>.txt of x y z r g b")
    return near_origin(np.concatenate(parts))


@DATASETS.register_module()
class S3DISDataset(CloudDataset):
    """Rooms of S3DIS, 13 classes; see :class:`CloudDataset` for what the pipeline receives.

    Text is read once: each room is then kept as ``<cache>/<area>_<room>.npy``, ``(P, 7)`` float32.

    Args:
        data_root: ``Stanford3dDataset_v1.2_Aligned_Version``, with ``Area_1`` to ``Area_6``.
        split: ``train``, the other five areas, or ``test``.
        test_area: Area to test on, 1 to 6. The usual single one is 5; all six in turn make the 6-fold result.
        cache: Folder of the .npy files, ``<data_root>/cache`` by default.
        **kwargs: Further keywords of mmengine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        ValueError: If ``split`` or ``test_area`` is unknown, or a file is damaged.
        visionpe.utils.errors.MissingFileError: If an area has no rooms.
    """

    METAINFO = {"classes": CLASSES, "palette": PALETTE}  # noqa: RUF012  mmengine's way to state a dataset's classes

    def __init__(
        self, data_root: str, split: Split = "train", test_area: int = 5, cache: str | None = None, **kwargs: Any
    ) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split={split!r} is unknown; allowed: {', '.join(get_args(Split))}")
        if test_area not in AREAS:
            raise ValueError(f"test_area={test_area!r} is unknown; allowed: {', '.join(map(str, AREAS))}")
        self.split, self.test_area = split, test_area
        self.cache = Path(cache or Path(data_root, "cache")).expanduser()
        super().__init__(data_root=str(Path(data_root).expanduser()), **kwargs)

    @property
    def areas(self) -> tuple[int, ...]:
        """The areas of this split."""
        return tuple(area for area in AREAS if (area == self.test_area) == (self.split == "test"))

    def load_data_list(self) -> list[dict]:
        """Return a record a room, and write the .npy files that are not there yet."""
        rooms: dict[Path, Path] = {}
        for area in self.areas:
            here = sorted(Path(self.data_root).glob(f"Area_{area}/*/Annotations"))
            if not here:
                raise MissingFileError(f"{Path(self.data_root, f'Area_{area}')} has no <room>/Annotations folder")
            rooms |= {folder.parent: self.cache / f"Area_{area}_{folder.parent.name}.npy" for folder in here}
        missing = {room: file for room, file in rooms.items() if not file.exists()}
        if missing and is_main_process():
            self._write(missing)
        barrier()
        return [{"file": str(file), "name": file.stem} for file in rooms.values()]

    def _write(self, rooms: dict[Path, Path]) -> None:
        for room, file in progress(rooms.items(), "Reading rooms of S3DIS", len(rooms)):
            with replacing(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, read_room(room))
        print_log(f"Wrote {len(rooms)} rooms to {self.cache}", logger="current")

    def read(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read one room; colours in 0..255."""
        try:
            data = np.load(record["file"])
            if getattr(data, "ndim", 0) != 2 or data.shape[1] != COLUMNS + 1 or data.dtype.kind != "f":
                raise ValueError(f"no room: {COLUMNS + 1} numbers a point are expected")
        except (ValueError, EOFError, OSError) as error:
            raise InputError(
                f"{record['file']}: cannot be read ({first_line(error, 80)}); delete it, and it is written again"
            ) from None
        return {
            "points": data[:, :3],
            "colors": data[:, 3:6],
            "labels": data[:, 6].astype(np.int64),
            "name": record["name"],
        }
