"""What the resolution study can be asked for: names, and the options with their defaults. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Protocol = Literal["object", "canvas", "native"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
OBJECT, CANVAS, NATIVE = PROTOCOLS
# What needs no policy: the image brought to the trained size, whole or in tiles.
Control = Literal["downscale", "tiling"]
CONTROLS: tuple[Control, ...] = get_args(Control)
DOWNSCALE, TILING = CONTROLS
# Share of images that are right, or its mean over classes.
Metric = Literal["top1", "balanced"]
METRICS: tuple[Metric, ...] = get_args(Metric)
# Classifiers that are fitted on the features of a frozen model.
Probe = Literal["linear", "knn"]
PROBES: tuple[Probe, ...] = get_args(Probe)
Launcher = Literal["none", "pytorch", "slurm", "mpi"]
LAUNCHERS: tuple[Launcher, ...] = get_args(Launcher)
# Data sets that ship inside packages.
EMBEDDED = ("digits", "mnist")
# Photographs by name, in a package or downloaded.
NAMED = ("elpv", "caltech101")
BY_NAME = (*EMBEDDED, *NAMED)
# Policies that are not names of policies: as built, each that applies, chosen without labels.
DEFAULT, ALL, AUTO = "default", "all", "auto"


@dataclass
class StudyOptions:
    """Options of a resolution study, as the command line has them.

    Args:
        model: timm names.
        checkpoint: Weights, one for each model or config in the same order, ``none`` for a model without.
        pretrained: Published weights where there is no checkpoint.
        model_kwargs: For ``timm.create_model``.
        probe: ``linear`` or ``knn``: a classifier fitted on frozen features of the training split of ``data``.
        trained_size: ``224`` or ``224x320``: at which the weights were trained, where their model was built for
            another size; None to ask the model.
        runs: Directories of trained runs, searched below.
        config: Configs of mmdet or mmseg, each with a checkpoint.
        cfg_options: ``KEY=VALUE`` overrides of every config.
        crop: Sizes of sliding crops for segmentation.
        data: ``digits``, ``mnist``, ``elpv``, ``caltech101`` or a folder of class folders; None for what the runs were
            trained on, else digits.
        class_map: A file that gives the folders of ``data`` their labels; None for the order of their names.
        resolutions: ``224``, ``512x384`` (height x width, pixels) or factors of the trained size, ``1.5x``.
        policy: Resolution policies, ``default``, ``all`` or ``auto``.
        auto_images: Images by which ``auto`` chooses, at least 2.
        auto_data: A folder of these images; None for the validation split of embedded data, else ``data``.
        metric: ``top1`` or ``balanced``; None for ``balanced`` with ``elpv`` and ``caltech101``, whose classes are
            uneven, else ``top1``.
        controls: ``downscale``, ``tiling`` or ``none``.
        protocol: ``object``, ``canvas``, ``native``.
        limit: A seeded random choice of so many images; None for all.
        limit_from: ``FACTORx=N``: only N images from that factor of the trained size on.
        crop_pct: Share of the resized image that is kept, 0 to 1; None for the model's.
        skip_corrupt: Leave unreadable images out.
        seed: Of places, choices of images and random weights.
        batch_size: Images a batch.
        device: Name of the device; None for the GPU where there is one.
        amp: Half precision by autocast.
        num_workers: Processes that prepare images.
        diagnostics: Images a row on which to look at attention, 0 for none.
        launcher: How several processes were started.
        fresh: Measure again what is stored.
        out: Directory of the results.
        table: ``full`` or ``compact``.
    """

    model: list[str] = field(default_factory=list)
    checkpoint: list[str] = field(default_factory=list)
    pretrained: bool = False
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    probe: Probe | None = None
    trained_size: str | None = None
    runs: list[str] = field(default_factory=list)
    config: list[str] = field(default_factory=list)
    cfg_options: list[str] = field(default_factory=list)
    crop: list[str] = field(default_factory=list)
    data: str | None = None
    class_map: str | None = None
    resolutions: list[str] = field(default_factory=lambda: ["0.5x", "1x", "1.5x", "2x", "3x"])
    policy: list[str] = field(default_factory=lambda: [DEFAULT])
    auto_images: int = 128
    auto_data: str | None = None
    metric: Metric | None = None
    controls: list[str] = field(default_factory=lambda: [DOWNSCALE])
    protocol: list[Protocol] = field(default_factory=lambda: [OBJECT, CANVAS])
    limit: int | None = None
    limit_from: list[str] = field(default_factory=list)
    crop_pct: float | None = None
    skip_corrupt: bool = False
    seed: int = 0
    batch_size: int = 100
    device: str | None = None
    amp: bool = False
    num_workers: int = 0
    diagnostics: int = 16
    launcher: Launcher = "none"
    fresh: bool = False
    out: Path = Path("work_dirs/resolution_scaling")
    table: Literal["full", "compact"] = "full"
