"""What there is.

visionpe list                       every encoding: source, sites, structure, parameters, kernels
visionpe list models "rope_*"       model names, also of timm's with --all
visionpe list policies rope_vit_s   resolution policies of a model
visionpe list configs coco          configs that are shipped, for `visionpe train`
visionpe list timm "vit_*dinov3*"   pretrained models of timm: which `visionpe.adapt` takes, their policies, or why not
visionpe list backbones             which encodings work in which backbones, each cell built and run
visionpe list pictures --write encodings.md   a picture of every encoding, or of one that is named, and a page of them
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.common import exit_code, make_parser
from visionpe.utils.errors import InputError

KINDS = ("encodings", "models", "policies", "configs", "timm", "backbones", "pictures")


def parser(prog: str = "visionpe list") -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
    p.add_argument("kind", nargs="?", choices=KINDS, default="encodings", help="(default: %(default)s)")
    p.add_argument(
        "pattern", nargs="?", metavar="NAME", help="of models, configs, timm, with * for anything; a model; an encoding"
    )
    p.add_argument("--all", action="store_true", help="models: those of timm too")
    p.add_argument("--pretrained", action="store_true", help="models: those with published weights, by their tags")
    p.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="backbones: into the table between the marks of a file; pictures: the page",
    )
    return p


def encodings() -> None:
    """Print the table of encodings."""
    from visionpe.benchmarks.encodings_table import table
    from visionpe.utils.console import wide_console

    wide_console(200).print(table())


def models(pattern: str | None, *, every: bool, pretrained: bool) -> None:
    """Print names of models.

    Raises:
        InputError: If none has such a name.
    """
    import timm

    import visionpe.backbones  # noqa: F401  registers the models with timm

    names = timm.list_models(pattern or "", pretrained=pretrained)
    if not every:
        names = [name for name in names if timm.model_entrypoint(name.split(".")[0]).__module__.startswith("visionpe.")]
    if not names:
        raise InputError(f"no model is called {pattern!r}; try `visionpe list models '*vit*'`, or --all for timm's")
    print("\n".join(names))


def policies(name: str | None) -> None:
    """Print the policies of a model, those in force first.

    Raises:
        InputError: If there is no such model.
    """
    import timm

    import visionpe.backbones

    if not name or not timm.is_model(name):
        raise InputError(f"{name!r} is no model; `visionpe list policies NAME` takes one of `visionpe list models`")
    print("\n".join(visionpe.policies(timm.create_model(name))) or "none: the model has nothing to adapt")


def configs(pattern: str | None) -> None:
    """Print names of shipped configs.

    Raises:
        InputError: If none has such a name.
    """
    from visionpe.utils.configs import list_configs

    names = list_configs(pattern or "*")
    if not names:
        raise InputError(f"no shipped config is called {pattern!r}; `visionpe list configs` has them all")
    print("\n".join(names))


def timm_models(pattern: str | None) -> None:
    """Print what of timm's pretrained models can be adapted.

    Raises:
        InputError: If none has such a name.
    """
    import timm

    from visionpe.backbones.adapt.catalogue import catalogue
    from visionpe.utils.console import wide_console
    from visionpe.utils.progress import SteadyProgress

    names = [name for name in timm.list_models(pattern or "", pretrained=True) if _is_timm(name)]
    if not names:
        raise InputError(f"no pretrained model of timm's is called {pattern!r}; try `visionpe list timm 'vit_*'`")
    with SteadyProgress(console=wide_console()) as progress:
        task = progress.add_task("looking at models", total=len(names))
        entries = list(catalogue(names, lambda: progress.advance(task)))
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        what = f"{entry.encoding}: {', '.join(entry.policies) or 'no policy'}" if entry.adaptable else entry.why_not
        print(f"{entry.name:<{width}}  {'yes' if entry.adaptable else 'no ':<3}  {entry.family}  {what}")
    print(f"{sum(entry.adaptable for entry in entries)} of {len(entries)} adapt")


def _is_timm(name: str) -> bool:
    import timm

    return bool(timm.model_entrypoint(name.split(".")[0]).__module__.startswith("timm."))


def backbones(write: Path | None) -> None:
    """Print or write which encodings work in which backbones."""
    from visionpe.benchmarks import backbones_table

    table = backbones_table.markdown(backbones_table.rows())
    if write is None:
        print(table)
    else:
        backbones_table.write(write, table)


def pictures(name: str | None, write: Path | None) -> None:
    """Draw what encodings make of attention.

    Raises:
        InputError: If there is no such encoding, or no page is named.
    """
    import visionpe
    from visionpe.looking.encodings import write_page

    if write is None:
        raise InputError("pictures need a page: --write encodings.md")
    if name is not None and name not in visionpe.list_encodings():
        raise InputError(f"{name!r} is no encoding; allowed: {', '.join(visionpe.list_encodings())}")
    for line in write_page(write, [name] if name else visionpe.list_encodings()):
        print(f"left out: {line}")
    print(f"written: {write}, {write.parent / 'encodings'}")


def main(argv: Sequence[str] | None = None, prog: str = "visionpe list") -> int:
    """The program; returns the exit code, 2 for input that cannot be used."""
    args = parser(prog).parse_args(argv)
    does = {
        "encodings": encodings,
        "models": lambda: models(args.pattern, every=args.all, pretrained=args.pretrained),
        "policies": lambda: policies(args.pattern),
        "configs": lambda: configs(args.pattern),
        "pictures": lambda: pictures(args.pattern, args.write),
        "timm": lambda: timm_models(args.pattern),
        "backbones": lambda: backbones(args.write),
    }
    return exit_code(does[args.kind])
