"""Weights of classifiers, detectors and published files for a backbone that gives features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from visionpe.detection.models.feature_norms import added_norms
from visionpe.detection.running.checkpoint import load_weights, read_checkpoint
from visionpe.utils.errors import InputError
from visionpe.utils.file_kinds import NoWeightsError, warn_of_nonfinite
from visionpe.utils.timm_reading import load_state_dict
from visionpe.utils.weight_files import Weights, unwrapped

# How the same network is called in a TimmImageClassifier or TimmFeatures, and in a detector or segmentor.
HOLDERS = ("model.", "backbone.model.")


def read_weights(checkpoint: str) -> Weights:
    """The weights of a file of mmengine, of timm, or as published, with what tells whose they are.

    Raises:
        visionpe.utils.errors.InputError: If it is no file of weights, or holds none.
    """
    if checkpoint.endswith(".pkl") and Path(checkpoint).is_file():
        state = unwrapped(load_state_dict(checkpoint))
    else:
        state = unwrapped(read_checkpoint(checkpoint))
        warn_of_nonfinite(state, checkpoint)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise NoWeightsError(f"checkpoint {checkpoint!r} holds no dictionary of tensors by name")
    return state


def start_norms(network: Any) -> None:
    """Set the norms of the features to the identity."""
    for norm in network.norms:
        if any(True for _ in norm.parameters()):  # others belong to features that nobody asked for
            norm.reset_parameters()


def load_backbone(
    network: Any,
    checkpoint: str,
    *,
    prefix: str = "",
    names: Callable[[], set[str]],
    fresh_norms: bool = False,
) -> int:
    """Load weights into a timm model that was cut down to its features.

    Args:
        network: The model, without classifier.
        checkpoint: File or URL: weights of mmengine (of a classifier, or of a detector with this backbone), of timm,
            ``.safetensors``, or in any layout that the model knows.
        prefix: Only what is below this name in the file.
        names: Gives the names of the weights of the whole model; those that the features do not need may be left over.
        fresh_norms: Of a classifier, leave the final norm out: norms of the features start at the identity.

    Returns:
        How many tensors the model took.

    Raises:
        InputError: If the file does not hold all that ``network`` needs, or holds something unknown.
        visionpe.utils.errors.MissingFileError: If there is no such file.
    """
    source = f"checkpoint {checkpoint!r}"
    ours = hasattr(network, "convert_state")  # ours know the published layouts, and say what does not fit
    try:
        if checkpoint.endswith(".npz") and hasattr(network, "load_pretrained"):
            network.load_pretrained(checkpoint)
            return len(network.state_dict())
        given = below(read_weights(checkpoint), prefix, source)
    except RuntimeError as error:
        raise InputError(f"{source}: {error}") from None
    try:
        # Of adapted models of timm's too, which take timm's layout.
        converted = network.in_our_layout(given) if hasattr(network, "in_our_layout") else given
        state = converted if isinstance(converted, Weights) else given.derived(converted)
        extra = state.keys() - network.state_dict().keys()
        spare = extra & names() if extra else set()
        for name in spare:
            del state[name]
        if ours:
            network.load_state_dict(state)
            if fresh_norms and "norm.weight" in given:
                start_norms(network)
        else:
            unknown = added_norms(network) is not None and not any(name.startswith("norms.") for name in state)
            load_weights(network, state, source=source, optional=("norms.",) if unknown else ())
    except (RuntimeError, InputError) as error:
        text = str(error) if str(error).startswith(source) else f"{source}: {error}"
        raise InputError(text + _hint(network, given)) from None
    return len(state)


def _hint(network: Any, given: Weights) -> str:
    """Which keyword would make the model the one that was trained, where it is easily told."""
    own = network.state_dict()
    if ("cls_token" in given) != ("cls_token" in own):
        which = "a class token" if "cls_token" in given else "none: give class_token=False"
        return f"; the model has {'a' if 'cls_token' in own else 'no'} class token, the file {which}"
    scaled = [any(name.endswith("ls1.gamma") for name in names) for names in (given, own)]
    if scaled == [True, False]:
        return "; the file has LayerScale: give init_values=1e-5"
    return "; the file has no LayerScale: give init_values=0" if scaled == [False, True] else ""


def below(weights: Weights, prefix: str, source: str) -> Weights:
    """The part of a file that holds the network, under the network's own names."""
    holder = prefix or next((h for h in HOLDERS[::-1] if any(name.startswith(h) for name in weights)), "")
    state = weights.derived({name.removeprefix(holder): v for name, v in weights.items() if name.startswith(holder)})
    if not state:
        what = f"has nothing below prefix={prefix!r}" if prefix else "holds no dictionary of tensors by name"
        raise InputError(f"{source} {what}")
    if prefix and all(name.startswith("model.") for name in state):
        state = state.derived({name.removeprefix("model."): value for name, value in state.items()})
    return state
