"""Predictions drawn into files and on a page: what ``visionpe predict`` calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visionpe.detection.predicting.drawing import Painter, write_image
from visionpe.detection.predicting.predictor import Predictor, read_image
from visionpe.detection.predicting.sources import Source, collect
from visionpe.detection.running import runner as setup
from visionpe.utils.errors import InputError
from visionpe.utils.files import check_output
from visionpe.viewing.predictions import Entry, write_predictions

READ_FIRST = 64  # pictures, beyond which they are not all looked at ahead of the work
ON_PAGE = 900  # pixels of the longer side of a picture on a page
LARGEST_PAGE = 1000  # pictures


def found_classes(sample: Any, score: float) -> Counter[int]:
    """Labels of what is found in a data sample, the most frequent or most likely first.

    Args:
        sample: Of mmdet, mmseg or mmpretrain.
        score: Least score of a detection that counts, 0 to 1.
    """
    if "pred_instances" in sample:
        kept = sample.pred_instances[sample.pred_instances.scores >= score]
        return Counter(kept.labels.tolist())
    if "pred_sem_seg" in sample:
        return Counter(sample.pred_sem_seg.data.flatten().tolist())
    return Counter([int(sample.pred_score.argmax())])


def describe(sample: Any, classes: Sequence[str] | None, score: float) -> str:
    """A data sample on one line: what was found, or the most frequent or most likely classes.

    Args:
        sample: Of mmdet, mmseg or mmpretrain.
        classes: Their names, where known.
        score: Least score of a detection that counts, 0 to 1.
    """

    def name(label: int) -> str:
        return _name(label, classes)

    if "pred_instances" in sample:
        found = sample.pred_instances
        kept = found[found.scores >= score]
        return ", ".join(f"{name(int(i))} {float(p):.2f}" for i, p in zip(kept.labels, kept.scores)) or "nothing"
    if "pred_sem_seg" in sample:
        counts = found_classes(sample, score)
        total = sum(counts.values())
        return ", ".join(f"{name(label)} {100 * n / total:.1f}%" for label, n in counts.most_common(6))
    top = sample.pred_score.topk(min(5, len(sample.pred_score)))
    return ", ".join(f"{name(int(i))} {float(p):.2f}" for p, i in zip(top.values, top.indices))


def _name(label: int, classes: Sequence[str] | None) -> str:
    return str(classes[label]) if classes and label < len(classes) else f"class {label}"


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    factor = min(ON_PAGE / max(picture.shape[:2]), 1)
    size = (max(round(picture.shape[1] * factor), 1), max(round(picture.shape[0] * factor), 1))
    smaller = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if factor < 1 else picture
    return cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()


def _entry(source: Source, picture: NDArray[np.uint8], sample: Any, drawn: Any, painter: Painter) -> Entry:
    """A picture for the page."""
    truth = source.truth(painter.scope, painter.classes, picture.shape[:2])
    labels = set(found_classes(sample, painter.score))
    right = None
    pictures = {"prediction": _jpeg(drawn)}
    words = describe(sample, painter.classes, painter.score)
    if truth is not None:
        pictures["ground truth"] = _jpeg(painter(picture, truth, truth=True))
        if painter.scope == "mmpretrain":
            label = int(truth.gt_label)
            right, words = label in labels, f"{words}; true: {_name(label, painter.classes)}"
            labels |= {label}
        else:
            labels |= set(truth.gt_instances.labels.tolist())
    pictures["picture"] = _jpeg(picture)
    names = [_name(label, painter.classes) for label in sorted(labels)]
    return Entry(source.path.name if source.folder is None else source.name, words, names, pictures, right)


def _check(sources: Sequence[Source], out: Path, page: Path | None, inputs: Sequence[Any]) -> list[Path]:
    """The files that will be written; refuses those that are read."""
    files = [out / f"{source.name}.png" for source in sources]
    if len(set(files)) < len(files):
        raise InputError("two images have the same name, so their drawings would be one file; predict them apart")
    read = {source.path.resolve() for source in sources} | {Path(str(each)).expanduser().resolve() for each in inputs}
    over = read & {file.resolve() for file in files}
    if over:
        raise InputError(f"--out {out}: {min(over)} would be written over, which is to be read; give another directory")
    check_output(out, "--out", folder=True)
    if page is not None:
        if page.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--page {page}: allowed: a file named .html")
        if page.resolve() in read:
            raise InputError(f"--page {page}: would be written over, which is to be read; give another file")
        if len(sources) > LARGEST_PAGE:
            raise InputError(f"--page {page}: {len(sources)} pictures; allowed: up to {LARGEST_PAGE}, see --limit")
        check_output(page, "--page")
    return files


def predict(
    images: Sequence[str | Path],
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path = "predictions",
    *,
    score_thr: float = 0.3,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    page: str | Path | None = None,
    image_root: str | Path | None = None,
    limit: int | None = None,
    on_image: Callable[[Path, str], None] = lambda file, found: None,
) -> list[Path]:
    """Predict and draw: boxes and masks, a segmentation, or the class.

    Args:
        images: Pictures of any size; folders, with all pictures below them; files of COCO annotations (``.json``). On a
            page, annotations and folders that are called as classes of the model are the ground truth.
        config: The config that the weights were trained with: a file, or the name of a shipped config.
        checkpoint: Weights that fit it: ``.pth`` or ``.safetensors``.
        out: Directory of the drawings, ``<name of the picture>.png``, below it as the picture is below its folder.
        score_thr: Least score of a detection that is drawn, 0 to 1.
        device: Where to run; the best there is by default.
        cfg_options: Overrides of the config by dotted key.
        page: Write all of them into this HTML file too, which needs nothing else.
        image_root: Where the pictures of annotations stand; found beside them by default.
        limit: Only so many pictures, the first ones.
        on_image: Called with each file written and what was found, in words.

    Returns:
        The files written, the page last.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used or the weights do not fit.
    """
    if not 0 <= score_thr <= 1:
        raise InputError(f"--score-thr {score_thr}: must be 0 to 1")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: must be at least 1")
    sources = collect(images, image_root)[:limit]
    where = None if page is None else Path(page)
    files = _check(sources, Path(out), where, [*images, config, checkpoint])
    if len(sources) <= READ_FIRST:
        for source in sources:
            read_image(source.path)
    loaded = setup.load_config(str(config), cfg_options)
    predictor = Predictor(loaded, setup.check_checkpoint(str(checkpoint)), device)
    painter, entries = Painter(predictor.scope, predictor.meta, score_thr), list[Entry]()
    for source, file in zip(sources, files):
        picture = read_image(source.path)
        sample = predictor(picture)
        drawn = painter(picture, sample, legend=True)
        write_image(file, drawn)
        if where is not None:
            entries.append(_entry(source, picture, sample, drawn, painter))
        on_image(file, describe(sample, painter.classes, score_thr))
    if where is None:
        return files
    settings = {"config": config, "checkpoint": checkpoint, "score_thr": score_thr, "cfg_options": cfg_options or {}}
    title = f"{Path(str(config)).stem} on {', '.join(Path(each).name for each in images)[:80]}"
    write_predictions(where, title, entries, settings)
    return [*files, where]
