"""Choosing a resolution policy for a model and an image size, from images without labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.checks import shown
from visionpe.policy.apply import policies, set_policy
from visionpe.policy.grammar import DEFAULT
from visionpe.policy.holder import policy_holders
from visionpe.policy.selection import DOWNSCALE, PolicyChoice, Views, select_policy
from visionpe.policy.sizes import Size, as_size, trained_size
from visionpe.utils.memory import is_out_of_memory
from visionpe.utils.resizing import resize_images

# Further values of what takes a number; the name alone stands for its default.
VALUES = {"rescale": ("rescale(0.25)", "rescale(0.75)"), "temperature": ("temperature(-1)", "temperature(2)")}


def first_round(model: nn.Module) -> list[str]:
    """What is tried on a model alone, the model as built first."""
    parts = policy_holders(model.modules())
    names = [DEFAULT, *dict.fromkeys(name for part in parts for name in part.policies)]
    names += [value for name in VALUES if name in names for value in VALUES[name]]
    in_force = {part.built_policy for part in parts}
    return [name for name in names if name not in in_force]


def second_round(model: nn.Module, best: str) -> list[str]:
    """What is tried besides the best of the first round."""
    parts = policy_holders(model.modules())
    names = [name for name in dict.fromkeys(name for part in parts for name in part.modifiers) if name != DOWNSCALE]
    names += [value for name in VALUES if name in names for value in VALUES[name]]
    return names if best == DEFAULT else [f"{best}+{name}" for name in names]


def moved(images: Tensor, pixels: Size) -> Tensor:
    """Images ``(B, C, H, W)`` moved down and to the right, with their first rows and columns repeated there."""
    down, right = pixels
    return F.pad(images, (right, 0, down, 0), mode="replicate")[..., : images.shape[2], : images.shape[3]]


def half_a_patch(model: nn.Module) -> Size:
    """Height and width, pixels: moved by it, an image is cut into other patches as much as it can be."""
    embeds = (getattr(module, "patch_embed", None) for module in model.modules())
    patch = next((found for embed in embeds if (found := getattr(embed, "patch_size", None))), 16)
    height, width = (patch, patch) if isinstance(patch, int) else tuple(patch)[-2:]
    return max(1, height // 2), max(1, width // 2)


def _logits(model: nn.Module, images: Sequence[Tensor], device: torch.device | str | None) -> Tensor:
    return torch.cat([model(batch.to(device)).float().cpu() for batch in images])


def _try(
    names: Sequence[str],
    model: nn.Module,
    views: tuple[Sequence[Tensor], Sequence[Tensor]],
    device: torch.device | str | None,
    logits: dict[str, Views],
) -> None:
    """Logits under each policy; one that cannot run here is left out, but never the default."""
    for name in names:
        set_policy(model, DEFAULT)
        set_policy(model, name)
        try:
            first, second = (_logits(model, images, device) for images in views)
        except Exception as error:
            if name == DEFAULT or is_out_of_memory(error):
                raise
            continue
        if first.isfinite().all() and second.isfinite().all():
            logits[name] = first, second


def _first(batch: Any) -> Tensor:
    """The images of a batch, which may come with labels."""
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(images, Tensor):
        raise TypeError(f"images: {type(images).__name__} in a batch; allowed: a tensor (B, C, height, width), first")
    return images


@torch.inference_mode()
def compare_policies(
    model: nn.Module,
    images: Sequence[Tensor],
    trained: Size,
    *,
    downscale: bool = True,
    group: int = 1,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> PolicyChoice:
    """Try a model's policies on images and choose one; the model has its own policies again afterwards.

    Args:
        model: A classifier.
        images: Batches ``(B, C, height, width)`` at the size to choose for.
        trained: Height and width at which the model was trained, pixels.
        downscale: Resizing the images to that size may be chosen.
        group: Rows of logits that the model gives of one image.
        device: Where the model is.
        seed: Of the bootstrap over images.

    Returns:
        The choice, see :func:`~visionpe.policy.selection.select_policy`.
    """
    parts = policy_holders(model.modules())
    before, training = [(part, part.policy) for part in parts], model.training
    model.eval()
    step = half_a_patch(model)
    views = images, [moved(batch, step) for batch in images]
    refused = () if downscale else (DOWNSCALE,)
    logits: dict[str, Views] = {}
    try:
        _try(first_round(model), model, views, device, logits)
        scores = select_policy(logits, group=group, seed=seed).scores
        _try(second_round(model, max(scores, key=scores.__getitem__)), model, views, device, logits)
        set_policy(model, DEFAULT)
        small, other = ([resize_images(batch, trained) for batch in view] for view in views)
        logits[DOWNSCALE] = _logits(model, small, device), _logits(model, other, device)
    finally:
        for part, policy in before:
            part.policy = policy
        model.train(training)
    return select_policy(logits, refused=refused, group=group, seed=seed)


def choose_policy(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    size: int | Size | str,
    *,
    trained: int | Size | str | None = None,
    seed: int = 0,
) -> PolicyChoice:
    """Choose the resolution policy for a model at an image size, from images without labels.

    Every policy that applies to the model is tried, alone and then joined by what may join the best, and so is resizing
    the images to the trained size (``downscale``), where the model has a patch embedding that can. What is scored is
    how much predictions tell of the images, and whether they stay when an image is moved by half a patch
    (:func:`~visionpe.policy.selection.knowledge`). The model is left as it was: pass the choice to
    :func:`visionpe.set_policy`, or keep choices for several sizes in a :class:`~visionpe.policy.PolicyTable`.

    Args:
        model: A classifier with encodings of this package; it runs where its parameters are.
        images: Normalised as the model wants them, ``(B, C, h, w)``, or batches of them (a ``DataLoader`` too; of
            pairs the first is taken). 50 to 200 serve. They are resized to ``size`` and to the trained size, so give
            them at ``size`` or larger.
        size: Height and width to choose for, pixels: ``448``, ``(384, 512)`` or ``"384x512"``.
        trained: Height and width at which the model was trained; by default at which it was built.
        seed: Of the bootstrap over images.

    Returns:
        The choice: ``policy``, the ``scores`` of all that was tried, how ``sure`` it is, and whether it ``warns`` that
        the model knows more of these images when they are resized to the trained size.

    Raises:
        TypeError: If ``images`` are no tensors.
        ValueError: If there are no images, they have no such shape, ``size`` is no size, or the model has no policies.
    """
    wanted = as_size(size)
    at = as_size(trained, "trained") if trained is not None else trained_size(model)
    if isinstance(images, (str, Mapping)) or not isinstance(images, (Tensor, Iterable)):
        raise TypeError(f"images={shown(images)}; allowed: a tensor (B, C, height, width), or batches of them")
    batches = [images] if isinstance(images, Tensor) else [_first(batch) for batch in images]
    for batch in batches:
        if batch.ndim != 4 or not batch.is_floating_point():
            raise ValueError(
                f"images: {batch.dtype} of shape {tuple(batch.shape)}; allowed: floating point (B, C, height, width), "
                "normalised for the model"
            )
    batches = [batch for batch in batches if len(batch)]
    if not batches:
        raise ValueError("images: none given; allowed: one or more")
    if not policy_holders(model.modules()):
        raise ValueError(
            f"model: {type(model).__name__} holds no encoding of this package, so no policy applies; allowed: a model "
            "of its backbones, or of timm after visionpe.adapt(model)"
        )
    if wanted == at:
        return PolicyChoice(DEFAULT, 0.0, 1.0, False)
    device = next((parameter.device for parameter in model.parameters()), None)
    resized = [resize_images(batch, wanted) for batch in batches]
    downscale = DOWNSCALE in policies(model)
    return compare_policies(model, resized, at, downscale=downscale, device=device, seed=seed)
