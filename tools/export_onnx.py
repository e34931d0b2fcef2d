"""Export a model to ONNX at a fixed image size, and check it against onnxruntime before the file appears.

    python tools/export_onnx.py rope_vit_s --checkpoint work_dirs/digits/rope/model.safetensors --img-size 224 320
    python tools/export_onnx.py vitdet_b --img-size 512 --features 2 5 8 11 --out backbone.onnx
    python tools/export_onnx.py vit_small_patch16_224 --model-kwargs num_classes=10

Any model that timm knows by name, ours and its own. Positions at a size that was not trained follow the policy of the
encoding, as in PyTorch. The file takes images (B, C, H, W) as float32, named "image", and gives "logits", or one
"features_<i>" a map with --features. It is written only if outputs agree to --tolerance on an image that the export
has not seen.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEEDED = ("onnx", "onnxruntime", "onnxscript")
LIMIT_BYTES = 2**31  # of a protobuf message
INSTALL = "pip install 'visionpe[onnx]'"


class ExportError(Exception):
    """The model cannot be exported, or what was exported is not the model; the message says why."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from timm.utils import ParseKwargs

    p = argparse.ArgumentParser(
        prog="export_onnx.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("model", help="name in timm's registry, such as rope_vit_s, swin_t or vitdet_b")
    p.add_argument("--checkpoint", metavar="FILE", help="weights, in any layout that the model loads")
    p.add_argument(
        "--img-size", type=int, nargs="+", metavar="N", help="height and width in pixels, or one (default: the model's)"
    )
    p.add_argument("--pos-encoding", metavar="SPEC", help="in place of the model's own, such as rope_mixed+ape")
    p.add_argument("--out", type=Path, metavar="FILE", help="the file to write (default: <model>.onnx)")
    p.add_argument(
        "--features",
        type=int,
        nargs="*",
        metavar="INDEX",
        help="feature maps of these stages or blocks in place of logits (default: the last four)",
    )
    p.add_argument("--batch-size", type=int, default=1, metavar="N", help="images at a time (default: %(default)s)")
    p.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="X", help="largest difference allowed (default: %(default)s)"
    )
    p.add_argument(
        "--model-kwargs",
        nargs="*",
        default={},
        action=ParseKwargs,
        metavar="KEY=VALUE",
        help="further keywords of the model: img_size=512 num_classes=10",
    )
    return p


def check_installed() -> None:
    """Raises ExportError, naming what is not installed, and how to install it."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"not installed: {', '.join(missing)}; {INSTALL}")


def build(args: argparse.Namespace) -> tuple[Any, tuple[int, ...]]:
    """The model in evaluation mode, and the shape of its input ``(B, C, H, W)``.

    Raises:
        ExportError: If there is no such model, file or size, or the file does not fit.
    """
    import timm

    import visionpe  # noqa: F401  registers the models

    if not timm.is_model(args.model):
        from difflib import get_close_matches

        near = get_close_matches(args.model, timm.list_models(), n=3)
        raise ExportError(f"model {args.model!r} is unknown" + (f"; did you mean {', '.join(near)}?" if near else ""))
    if args.checkpoint and not Path(args.checkpoint).is_file():
        raise ExportError(f"--checkpoint {args.checkpoint}: there is no such file")
    keywords = dict(args.model_kwargs)
    if args.pos_encoding:
        keywords["pos_encoding"] = args.pos_encoding
    try:
        model = timm.create_model(args.model, checkpoint_path=args.checkpoint or "", **keywords).eval()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"{args.model}: {error}") from error
    size: list[int] = args.img_size or list(model.pretrained_cfg["input_size"][-2:])
    size = [*size, *size] if len(size) == 1 else size
    if len(size) != 2 or min(size) < 1 or args.batch_size < 1:
        raise ExportError(f"--img-size {size}, --batch-size {args.batch_size}: one or two positive sizes are allowed")
    count = sum(p.numel() * p.element_size() for p in model.parameters())
    if count > LIMIT_BYTES:
        raise ExportError(f"{args.model} has {count / 2**30:.1f} GB of parameters; one ONNX file holds 2")
    channels = keywords.get("in_chans", model.pretrained_cfg["input_size"][0])
    return model, (args.batch_size, channels, *size)


def as_features(model: Any, indices: Sequence[int]) -> tuple[Any, list[int]]:
    """The model as a module that gives a tuple of feature maps, and the indices of these.

    Raises:
        ExportError: If the model has no features, or not these.
    """
    from timm.models._features import feature_take_indices
    from torch import Tensor, nn

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
    import torch
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
    import torch

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


def run(args: argparse.Namespace) -> Path:
    """Export as asked for.

    Returns:
        The file.

    Raises:
        ExportError: If it cannot be done; there is no file then.
    """
    check_installed()
    model, shape = build(args)
    names = ["logits"]
    if args.features is not None:
        model, indices = as_features(model, args.features)
        names = [f"features_{i}" for i in indices]
    out = args.out or Path(f"{args.model}.onnx")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        for fold in (False, True):  # the plain graph where it serves
            try:
                export(model, shape, names, partial, fold)
                gap = difference(model, shape, partial)
            except Exception as error:  # whatever the exporter raises, the user wants its first line
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                failure = ExportError(f"{args.model} cannot be exported: {reason}")
                continue
            if gap <= args.tolerance:
                break
            failure = ExportError(
                f"{args.model}: onnxruntime differs from PyTorch by {gap:.2e}, more than "
                f"--tolerance {args.tolerance:g}; no file was written"
            )
        else:
            raise failure
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    size = " x ".join(map(str, shape))
    print(f"{out}: {args.model}, image {size}, {', '.join(names)}; differs from PyTorch by at most {gap:.1e}")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        run(args)
    except ExportError as error:
        print(f"export_onnx.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
