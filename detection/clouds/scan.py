"""A cloud through a model: voxels, scores or features, and back to the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from numpy.typing import NDArray
from torch import Tensor, nn

import visionpe.detection  # noqa: F401  registers what configs name
from visionpe.detection.clouds.dataset import near_origin
from visionpe.detection.clouds.stopwatch import Stopwatch
from visionpe.detection.running.kinds import kind_name
from visionpe.sparse import Recipe, Voxels, nearest
from visionpe.utils.errors import InputError
from visionpe.utils.timm_models import create_model
from visionpe.viewing.clouds.cloud import UNKNOWN, Cloud


@dataclass
class CloudModel:
    """A model and what brings clouds into it.

    Args:
        model: Takes :class:`visionpe.sparse.Voxels`; gives scores of voxels, or anything after ``forward_features``.
        pipeline: Of cloud transforms, up to ``PackCloud``.
        trained: Whether the weights mean anything.
        classes, palette: Of the scores, where known.
    """

    model: nn.Module
    pipeline: Compose
    trained: bool
    classes: Sequence[str] = ()
    palette: Sequence[tuple[int, int, int]] = ()


@dataclass
class CloudResult:
    """What came out: the cloud with predictions or coloured by features, and what it cost."""

    cloud: Cloud
    voxels: int
    seconds: dict[str, float] = field(default_factory=dict)
    watch: Stopwatch | None = None


def recipe_of(name: str) -> Recipe:
    """Whose features a model takes."""
    return "ptv3" if "ptv3_" in name else "swin3d"


def from_name(
    name: str, checkpoint: str | None, voxel: float, options: dict[str, Any], *, has_normals: bool = True
) -> CloudModel:
    """A timm model, fed as the recipes of its family do.

    Args:
        name: Of the model.
        checkpoint: Weights that fit; random ones without.
        voxel: Side of a voxel, metres.
        options: Further keywords of ``timm.create_model``.
        has_normals: Whether the cloud has them: Point Transformer V3 takes colours and normals, or with random weights
            colours alone.

    Raises:
        InputError: If the model cannot be built.
    """
    normals = "NORM" in str(options.get("signals", ""))
    if recipe_of(name) == "ptv3":
        options = {"in_chans": 6 if normals or has_normals or checkpoint else 3, **options}
        normals = normals or options["in_chans"] != 3
    else:
        options = {"in_chans": 9 if normals else 6, **options}
    pack = {"type": "PackCloud", "normals": normals, "recipe": recipe_of(name)}
    try:
        model = create_model(name, checkpoint, **options)
        steps = [{"type": "VoxelizeCloud", "size": voxel, "keep": "first"}, pack]
        return CloudModel(model, Compose(steps), bool(checkpoint))
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise InputError(f"--model {name}: {str(error).splitlines()[0]}") from None


def from_config(path: str, checkpoint: str, options: dict[str, Any]) -> CloudModel:
    """A trained ``CloudSegmentor``, fed by the test pipeline of its config.

    Raises:
        InputError: If the config or the checkpoint cannot be used.
    """
    from mmengine.registry import DATASETS, MODELS

    from visionpe.detection.running import runner as setup

    config = setup.load_config(path, options)
    setup.drop_pretrained(config.model)
    model = MODELS.build(config.model)
    setup.load_strictly(model, setup.check_checkpoint(checkpoint))
    dataset = config.test_dataloader.dataset
    steps = list(dataset.pipeline)
    for step in dataset.pipeline:
        if kind_name(step) == "CloudVotes":  # one view, as it stands
            steps = [s for s in steps if s is not step] + list(step["transforms"])
    meta = getattr(DATASETS.get(dataset.type), "METAINFO", {})
    palette = [tuple(colour) for colour in meta.get("palette", ())]
    return CloudModel(model.model, Compose(steps), True, meta.get("classes", ()), palette)


def voxels_of(cloud: Cloud, pipeline: Compose) -> tuple[Voxels, Tensor]:
    """The voxels of a cloud, and the voxel of each point ``(P,)``.

    Raises:
        InputError: If the pipeline needs what the cloud lacks.
    """
    assert cloud.colors is not None
    given = {
        "points": near_origin(cloud.points),
        "colors": cloud.colors.astype(np.float32) / np.float32(127.5) - 1,
        "labels": np.full(cloud.count, UNKNOWN, np.int64),
    }
    if cloud.normals is not None:
        given["normals"] = cloud.normals.astype(np.float32)
    try:
        packed = pipeline(given)
    except ValueError as error:
        raise InputError(f"{cloud.name}: {error}") from None
    return packed["inputs"], packed["data_samples"].inverse.data[0]


def feature_colours(features: Tensor) -> NDArray[np.uint8]:
    """The three main directions of features ``(N, channels)`` as colours ``(N, 3)``."""
    x = features.float().cpu()
    x = x - x.mean(0)
    _, directions = torch.linalg.eigh(x.T @ x)
    main = (x @ directions[:, -3:].flip(1)).numpy()
    low, high = np.percentile(main, (2, 98), axis=0)
    colours = np.full((len(main), 3), 128, np.uint8)
    shares = ((main - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    colours[:, : main.shape[1]] = (255 * shares).round()
    return colours


def _at_voxels(features: Voxels, finest: Voxels) -> Tensor:
    """Features of a level at the finest voxels, between three neighbours."""
    if len(features) == len(finest):
        return features.features
    where = (features.positions, features.cloud, finest.positions, finest.cloud)
    rows, away = nearest(*where, min(3, len(features)), cell=float(features.stride))
    share = 1 / (away + 1e-8)
    return (features.features[rows] * (share / share.sum(1, keepdim=True))[..., None]).sum(1)


@torch.inference_mode()
def run_model(cloud: Cloud, entry: CloudModel, device: torch.device) -> CloudResult:
    """Run the model on a cloud.

    A model that was trained and gives scores for voxels makes predictions; of any other the features are shown.

    Raises:
        InputError: If the model cannot take the voxels.
    """
    model = entry.model.to(device).eval()
    watch, kept = Stopwatch(model), []
    inner: Any = model.forward_features

    def keep(*args: Any, **kwargs: Any) -> Any:
        kept.append(inner(*args, **kwargs))
        return kept[-1]

    model.forward_features = keep  # type: ignore[assignment]
    times = [watch.now()]
    voxels, inverse = voxels_of(cloud, entry.pipeline)
    times.append(watch.now())
    voxels, inverse = voxels.to(device), inverse.to(device)
    try:
        with watch:
            scores = model(voxels)
    except ValueError as error:
        raise InputError(f"{cloud.name}: {error}") from None
    except (AttributeError, TypeError) as error:
        raise InputError(f"--model {type(model).__name__}: takes no voxels ({error})") from error
    finally:
        del model.forward_features  # the class's own again
    times.append(watch.now())
    classes, palette, labels = cloud.classes, cloud.palette, cloud.labels
    if entry.trained and isinstance(scores, Tensor) and len(scores) == len(voxels):
        found = {"predictions": scores.argmax(1)[inverse].cpu().numpy()}
        count = scores.shape[1]
        if len(entry.classes) == count:
            classes, palette = entry.classes, entry.palette
        elif len(classes) != count:
            classes, palette = [f"class {i}" for i in range(count)], ()
        # Labels of other classes say nothing about these.
        if (cloud.named and list(cloud.classes) != list(classes)) or len(cloud.classes) > count:
            labels = None
    else:
        found = {"features": feature_colours(_at_voxels(kept[-1], voxels))[inverse.cpu().numpy()]}
    given: dict[str, Any] = {
        "points": cloud.points,
        "colors": cloud.colors,
        "labels": labels,
        "normals": cloud.normals,
        **found,
    }
    done = Cloud(**given, classes=classes, palette=palette, name=cloud.name)
    times.append(watch.now())
    seconds = dict(zip(("voxelise", "model", "back to points"), np.diff(times).tolist()))
    return CloudResult(done, len(voxels), seconds, watch)
