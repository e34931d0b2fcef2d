"""Export a model to ONNX at a fixed image size, and check it against onnxruntime before the file appears.

    visionpe export rope_vit_s --checkpoint work_dirs/digits/rope/model.safetensors --img-size 224 320
    visionpe export vitdet_b --img-size 512 --features 2 5 8 11 --out backbone.onnx
    visionpe export vit_small_patch16_224 --model-kwargs num_classes=10

Any model that timm knows by name, ours and its own. Positions at a size that was not trained follow the policy of the
encoding, as in PyTorch. The file takes images (B, C, H, W) as float32, named "image", and gives "logits", or one
"features_<i>" a map with --features. It is written only if outputs agree to --tolerance on an image that the export
has not seen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.common import borrowed_action, exit_code, make_parser, trust_option


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
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
        action=borrowed_action("timm.utils:ParseKwargs"),
        metavar="KEY=VALUE",
        help="further keywords of the model: img_size=512 num_classes=10",
    )
    trust_option(p)
    return p


def main(argv: Sequence[str] | None = None, prog: str = "visionpe export") -> int:
    """The program; returns the exit code: 0, 2 for what cannot be exported, 130 and 143 when ended."""
    args = parser(prog).parse_args(argv)
    from visionpe.exporting import ExportError, export_onnx

    def work() -> int:
        try:
            done = export_onnx(**vars(args))
        except ExportError as error:
            print(f"{prog}: error: {error}", file=sys.stderr)
            return 2
        size = " x ".join(map(str, done.shape))
        print(
            f"{done.path}: {args.model}, image {size}, {', '.join(done.outputs)}; "
            f"differs from PyTorch by at most {done.difference:.1e}"
        )
        return 0

    return exit_code(work, "no file was written")
