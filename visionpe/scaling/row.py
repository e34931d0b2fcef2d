"""One row: accuracy, speed, memory, tokens and FLOPs of one model at one resolution."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import numpy as np
import torch
from timm.utils import accuracy
from torch import Tensor, nn

from visionpe.scaling.controls import TiledModel, tiles
from visionpe.scaling.diagnostics import record_attention
from visionpe.scaling.flops import count_flops
from visionpe.scaling.metric import outcomes
from visionpe.scaling.sizes import Size
from visionpe.scaling.statistics import bootstrap, pack, pack_classes, wilson
from visionpe.utils.memory import is_out_of_memory, peak_memory
from visionpe.utils.resizing import resize_images


def _autocast(device: torch.device, amp: bool) -> AbstractContextManager:
    if not amp:
        return nullcontext()
    half = device.type == "cuda" and not torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, dtype=torch.float16 if half else torch.bfloat16)


def _timed(model: nn.Module, images: Tensor | list[Tensor]) -> tuple[Tensor, float]:
    device = images[0].device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    logits = model(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return logits, time.perf_counter() - start


class _Diagnostics:
    """Attention on the first ``wanted`` images, weighted by their number; gone if memory does not suffice for it."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.seen = wanted, 0
        self.parts: list[tuple[int, dict[str, float | None]]] = []

    def look(self, model: nn.Module, images: Tensor) -> None:
        images = images[: self.wanted - self.seen]
        if not len(images):
            return
        try:
            with record_attention(model) as tapped:
                model(images)
            self.parts.append((len(images), tapped.result()))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.parts.append((len(images), {}))
        self.seen += len(images)

    def mean(self, key: str) -> float | None:
        values = [(n, part.get(key)) for n, part in self.parts]
        if not values or any(value is None for _, value in values):
            return None
        return sum(n * value for n, value in values if value is not None) / self.seen


class NotFiniteError(ValueError):
    """A model gives NaN or infinity."""


@torch.inference_mode()
def measure(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor, list[str]]],
    *,
    device: torch.device,
    amp: bool = False,
    downscale_to: Size | None = None,
    tile_to: Size | None = None,
    diagnostics: int = 0,
) -> dict[str, Any]:
    """Run a model over a set of images.

    Args:
        model: On ``device``, in evaluation mode.
        batches: Images ``(B, C, height, width)``, or a list of several sizes,
            labels ``(B,)`` and names of corrupt images that were left out.
        device: Where to run.
        amp: Half precision by autocast.
        downscale_to: Resize every batch to this height and width first (the baseline), pixels.
        tile_to: Cut every image into tiles of this height and width first, pixels, and average over them; see
            :func:`visionpe.scaling.controls.tiles`.
        diagnostics: On how many images to look at attention, in a forward pass more; 0 for none.

    Returns:
        ``n top1 top1_low top1_high top5 top5_low top5_high`` (percent, 95% Wilson intervals), ``balanced balanced_low
        balanced_high`` (the mean over classes of the share that is right, percent, with a bootstrap's 95% interval),
        ``images_per_s`` (of the model alone, median over whole batches, after a warm-up), ``peak_bytes``, ``flops`` (an
        image, over all its tiles), ``entropy`` and ``distance`` of attention (:mod:`visionpe.scaling.diagnostics`; None
        where they do not apply), ``corrupt`` (names), ``correct``, ``predicted`` and ``labels`` (packed, of every
        image).

    Raises:
        ValueError: If there are no images at all.
        NotFiniteError: If the outputs are not finite.
    """
    if tile_to is not None:
        model = TiledModel(model)
    hits = {1: 0, 5: 0}
    right: list[Tensor] = []
    classes: list[Tensor] = []
    truth: list[Tensor] = []
    attention = _Diagnostics(diagnostics)
    speeds: list[tuple[int, float]] = []  # images in the batch, images/s
    corrupt: list[str] = []
    peak: dict[str, float | None] = {"bytes": None}
    flops: int | None = None
    for images, labels, broken in batches:
        corrupt += broken
        if not len(images):
            continue
        labels = labels.to(device)
        images = [image.to(device) for image in images] if isinstance(images, list) else images.to(device)
        if downscale_to is not None and isinstance(images, Tensor):
            images = resize_images(images, downscale_to)
        if tile_to is not None:
            images = tiles(images, tile_to)
        with _autocast(device, amp):
            if flops is None:  # the first batch warms up; it is timed again below
                flops = count_flops(model, images[:1])
                with peak_memory(device) as peak:
                    model(images)
            logits, seconds = _timed(model, images)  # (B, classes)
            attention.look(model, images)
        logits = logits.float()
        if not logits.isfinite().all():
            raise NotFiniteError("the outputs are not finite")
        speeds.append((len(images), len(images) / seconds))
        for k, percent in zip(hits, accuracy(logits, labels, topk=tuple(hits))):
            hits[k] += round(float(percent) * len(images) / 100)
        guess = logits.argmax(1)  # (B,)
        right.append(guess.eq(labels).cpu())
        classes.append(guess.cpu())
        truth.append(labels.cpu())
    if flops is None:
        raise ValueError("no readable images")
    correct = torch.cat(right).numpy()
    n, whole = len(correct), max(size for size, _ in speeds)
    row: dict[str, Any] = {"n": n}
    for k, count in hits.items():
        low, high = wilson(count, n)
        row |= {f"top{k}": 100 * count / n, f"top{k}_low": low, f"top{k}_high": high}
    packed = {
        "correct": pack(np.asarray(correct)),
        "predicted": pack_classes(torch.cat(classes).numpy()),
        "labels": pack_classes(torch.cat(truth).numpy()),
    }
    each = outcomes(packed, "balanced")
    row |= {"balanced": 100 * float(each.mean())} | dict(zip(("balanced_low", "balanced_high"), bootstrap([each])))
    return {
        **row,
        "images_per_s": median(speed for size, speed in speeds if size == whole),
        "peak_bytes": peak["bytes"],
        "flops": flops,
        "entropy": attention.mean("entropy"),
        "distance": attention.mean("distance"),
        "corrupt": corrupt,
        **packed,
    }
