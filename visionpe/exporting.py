"""Models as ONNX files of one image size, each checked against onnxruntime before it appears."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

import visionpe.backbones  # noqa: F401  registers the models with timm
from visionpe.utils.files import check_output, replacing
from visionpe.utils.timm_models import create_model

NEEDED = ("onnx", "onnxruntime", "onnxscript")
LIMIT_BYTES = 2**31  # of a protobuf message
INSTALL = "pip install 'visionpe[onnx]'"


class ExportError(Exception):
    """The model cannot be exported, or what was exported is not the model; the message says why."""


def check_installed() -> None:
    """Raises ExportError, naming what is not installed, and how to install it."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"not installed: {', '.join(missing)}; {INSTALL}")


def build(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    pos_encoding: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
) -> nn.Module:
    """A timm model in evaluation mode.

    Raises:
        ExportError: If there is no such model or file, or the file does not fit.
    """
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        raise ExportError(f"model {name!r} is unknown" + (f"; did you mean {', '.join(near)}?" if near else ""))
    if checkpoint and not Path(checkpoint).is_file():
        raise ExportError(f"--checkpoint {checkpoint}: there is no such file")
    keywords = {**(model_kwargs or {}), **({"pos_encoding": pos_encoding} if pos_encoding else {})}
    try:
        return create_model(name, checkpoint, **keywords).eval()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"{name}: {error}") from error


def _input_shape(model: Any, label: str, img_size: Sequence[int] | None, batch_size: int) -> tuple[int, ...]:
    """``(B, C, H, W)`` of the file."""
    config = getattr(model, "pretrained_cfg", None) or {"input_size": (3, 224, 224)}
    known = config.get("input_size")
    if known is None:
        raise ExportError(f"{label} takes no images; allowed: models of images")
    size = list(img_size or known[-2:])
    size = [*size, *size] if len(size) == 1 else size
    if len(size) != 2 or min(size) < 1 or batch_size < 1:
        raise ExportError(f"--img-size {size}, --batch-size {batch_size}: one or two positive sizes are allowed")
    count = sum(p.numel() * p.element_size() for p in model.parameters())
    if count > LIMIT_BYTES:
        raise ExportError(f"{label} has {count / 2**30:.1f} GB of parameters; one ONNX file holds 2")
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return (batch_size, first.in_channels if first is not None else known[0], *size)


def as_features(model: Any, indices: Sequence[int]) -> tuple[Any, list[int]]:
    """The model as a module that gives a tuple of feature maps, and the indices of these.

    Raises:
        ExportError: If the model has no features, or not these.
    """
    if not hasattr(model, "forward_intermediates"):
        raise ExportError(f"{type(model).__name__} gives no intermediate features")
    count = len(model.feature_info)
    try:
        wanted: Any = list(indices) if indices else min(4, count)
        taken, _ = feature_take_indices(count, wanted)
    except AssertionError as error:
        raise ExportError(f"--features {list(indices)}: allowed are 0 to {count - 1}") from error

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.model.forward_intermediates(image, list(taken), intermediates_only=True))

    return Features().eval(), list(taken)


def export(model: Any, shape: Sequence[int], names: Sequence[str], path: Path, fold: bool = False) -> None:
    """Write the model, at one shape of its input, to ``path``.

    With ``fold`` what depends on parameters alone (resized tables, rotations) is computed here and stored: other
    runtimes resize otherwise (onnxruntime's bicubic differs by 3e-4), and some functions have no counterpart in ONNX.
    """
    from torch.fx.experimental.const_fold import split_const_subgraphs

    # The exporter reports its progress and what it could not fold, at length.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        image = torch.randn(*shape)
        if fold:
            model = split_const_subgraphs(torch.export.export(model, (image,)).module())
            model.run_folding()
        program = torch.onnx.export(
            model,
            (image,),
            dynamo=True,
            input_names=["image"],
            output_names=list(names),
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=False)


def difference(model: Any, shape: Sequence[int], path: Path) -> float:
    """Largest absolute difference between the model and the file, over all outputs, on a new random image."""
    import onnxruntime

    image = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        ours = model(image)
    ours = ours if isinstance(ours, tuple) else (ours,)
    if [tuple(t.shape) for t in ours] != [t.shape for t in theirs]:
        return float("inf")
    gaps = [(a - torch.from_numpy(b)).abs().max().item() for a, b in zip(ours, theirs)]
    return max(gaps) if all(gap == gap for gap in gaps) else float("nan")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: The file.
        shape: Of its input, ``(B, C, H, W)``.
        outputs: Names of its outputs.
        difference: Largest absolute difference from PyTorch on an image that the export has not seen.
    """

    path: Path
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    difference: float


def export_onnx(
    model: str | nn.Module,
    out: str | Path | None = None,
    *,
    img_size: Sequence[int] | None = None,
    batch_size: int = 1,
    features: Sequence[int] | None = None,
    tolerance: float = 1e-4,
    checkpoint: str | Path | None = None,
    pos_encoding: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
) -> Exported:
    """Write a model as an ONNX file of one image size, if onnxruntime agrees with PyTorch.

    The file takes float32 images named ``image`` and gives ``logits``, or one ``features_<i>`` a feature map.

    Args:
        model: A name in timm's registry, or a model that was built.
        out: The file; ``<model>.onnx`` by default.
        img_size: Height and width in pixels, or one for both; the model's own by default.
        batch_size: Images at a time.
        features: Feature maps of these stages or blocks in place of logits; empty for the last four.
        tolerance: Largest difference allowed.
        checkpoint, pos_encoding, model_kwargs: Of a model that is given by name.

    Raises:
        ExportError: If it cannot be done; there is no file then, and one that stood there is as it was.
        visionpe.utils.errors.InputError: If there is no right to write ``out``, or a folder is in the way.
    """
    check_installed()
    if not 0 <= tolerance < float("inf"):
        raise ExportError(f"--tolerance {tolerance:g}: must be finite and at least 0")
    if out is not None and checkpoint and Path(out).resolve() == Path(checkpoint).resolve():
        raise ExportError(f"--out {out}: is the checkpoint that is to be read; give another file")
    label = model if isinstance(model, str) else type(model).__name__
    path = Path(out) if out is not None else Path(f"{label}.onnx")
    check_output(path, "--out")
    if isinstance(model, str):
        built: Any = build(model, checkpoint=checkpoint, pos_encoding=pos_encoding, model_kwargs=model_kwargs)
    else:
        built = model.eval()
    shape, names = _input_shape(built, label, img_size, batch_size), ["logits"]
    if features is not None:
        built, indices = as_features(built, features)
        names = [f"features_{i}" for i in indices]
    with replacing(path) as partial:
        for fold in (False, True):  # the plain graph where it serves
            try:
                export(built, shape, names, partial, fold)
                gap = difference(built, shape, partial)
            except Exception as error:  # whatever the exporter raises, the user wants its first line
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                failure = ExportError(f"{label} cannot be exported: {reason}")
                continue
            if gap <= tolerance:
                break
            failure = ExportError(
                f"{label}: onnxruntime differs from PyTorch by {gap:.2e}, more than "
                f"--tolerance {tolerance:g}; no file was written"
            )
        else:
            raise failure
    return Exported(path, shape, tuple(names), gap)
