"""Predictions drawn into files: what ``visionpe predict`` calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visionpe.detection.predicting.drawing import Painter, write_image
from visionpe.detection.predicting.predictor import Predictor, read_image
from visionpe.detection.running import runner as setup
from visionpe.utils.errors import InputError
from visionpe.utils.files import check_output


def describe(sample: Any, classes: Sequence[str] | None, score: float) -> str:
    """A data sample on one line: what was found, or the most frequent or most likely classes.

    Args:
        sample: Of mmdet, mmseg or mmpretrain.
        classes: Their names, where known.
        score: Least score of a detection that counts, 0 to 1.
    """

    def name(label: int) -> str:
        return str(classes[label]) if classes else f"class {label}"

    if "pred_instances" in sample:
        found = sample.pred_instances
        kept = found[found.scores >= score]
        return ", ".join(f"{name(int(i))} {float(p):.2f}" for i, p in zip(kept.labels, kept.scores)) or "nothing"
    if "pred_sem_seg" in sample:
        counts = Counter(sample.pred_sem_seg.data.flatten().tolist())
        total = sum(counts.values())
        return ", ".join(f"{name(label)} {100 * n / total:.1f}%" for label, n in counts.most_common(6))
    top = sample.pred_score.topk(min(5, len(sample.pred_score)))
    return ", ".join(f"{name(int(i))} {float(p):.2f}" for p, i in zip(top.values, top.indices))


def predict(
    images: Sequence[str | Path],
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path = "predictions",
    *,
    score_thr: float = 0.3,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    on_image: Callable[[Path, str], None] = lambda file, found: None,
) -> list[Path]:
    """Predict and draw: boxes and masks, a segmentation, or the class.

    Args:
        images: Pictures, of any size.
        config: The config that the weights were trained with: a file, or the name of a shipped config.
        checkpoint: Weights that fit it: ``.pth`` or ``.safetensors``.
        out: Directory of the drawings, ``<name of the picture>.png``.
        score_thr: Least score of a detection that is drawn, 0 to 1.
        device: Where to run; the best there is by default.
        cfg_options: Overrides of the config by dotted key.
        on_image: Called with each file written and what was found, in words.

    Returns:
        The files written.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used or the weights do not fit.
    """
    if not 0 <= score_thr <= 1:
        raise InputError(f"--score-thr {score_thr}: must be 0 to 1")
    files = [Path(out) / f"{Path(image).stem}.png" for image in images]
    if len(set(files)) < len(files):
        raise InputError("two images have the same name, so their drawings would be one file; predict them apart")
    over = {Path(image).expanduser().resolve() for image in images} & {file.resolve() for file in files}
    if over:
        raise InputError(f"--out {out}: {min(over)} would be written over, which is to be read; give another directory")
    check_output(out, "--out", folder=True)
    pictures = [read_image(image) for image in images]
    loaded = setup.load_config(str(config), cfg_options)
    predictor = Predictor(loaded, setup.check_checkpoint(str(checkpoint)), device)
    painter = Painter(predictor.scope, predictor.meta, score_thr)
    for picture, file in zip(pictures, files):
        sample = predictor(picture)
        write_image(file, painter(picture, sample, legend=True))
        on_image(file, describe(sample, predictor.meta.get("classes"), score_thr))
    return files
