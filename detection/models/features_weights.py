"""Weights of classifiers, detectors and published files for a backbone that gives features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from visionpe.detection.running.checkpoint import load_weights, read_state
from visionpe.utils.checkpoints import is_trusted, plain_types_only
from visionpe.utils.errors import InputError
from visionpe.utils.timm_reading import load_state_dict
from visionpe.utils.weight_files import NoWeightsError

# How the same network is called in a TimmImageClassifier or TimmFeatures, and in a detector or segmentor.
HOLDERS = ("model.", "backbone.model.")
OWN_READERS = (".npz", ".pkl")


def _read(checkpoint: str) -> dict[str, Tensor]:
    try:
        return read_state(checkpoint)
    except NoWeightsError:
        if "://" in checkpoint or not Path(checkpoint).is_file():
            raise
    with plain_types_only():
        # timm's, which knows the wrappers of many published files.
        return load_state_dict(checkpoint, device="cpu", weights_only=not is_trusted())


def load_backbone(network: Any, checkpoint: str, *, prefix: str = "", names: Callable[[], set[str]]) -> int:
    """Load weights into a timm model that was cut down to its features.

    Args:
        network: The model, without classifier.
        checkpoint: File or URL: weights of mmengine (of a classifier, or of a detector with this backbone), of timm,
            ``.safetensors``, or in any layout that the model knows.
        prefix: Only what is below this name in the file.
        names: Gives the names of the weights of the whole model; those that the features do not need may be left over.

    Returns:
        How many tensors the model took.

    Raises:
        InputError: If the file does not hold all that ``network`` needs, or holds something unknown.
        FileNotFoundError: If there is no such file.
    """
    source = f"checkpoint {checkpoint!r}"
    ours = hasattr(network, "convert_state")  # ours know the published layouts, and say what does not fit
    try:
        if checkpoint.endswith(OWN_READERS) and hasattr(network, "load_pretrained"):
            network.load_pretrained(checkpoint)
            return len(network.state_dict())
        state = _below(_read(checkpoint), prefix, source)
        state = network.convert_state(state) if ours else state
        extra = state.keys() - network.state_dict().keys()
        spare = extra & names() if extra else set()
        state = {name: value for name, value in state.items() if name not in spare}
        if ours:
            network.load_state_dict(state)
        else:
            load_weights(network, state, source=source)
    except RuntimeError as error:
        raise InputError(f"{source}: {error}") from None
    return len(state)


def _below(state: dict[str, Tensor], prefix: str, source: str) -> dict[str, Tensor]:
    """The part of a file that holds the network, under the network's own names."""
    holder = prefix or next((h for h in HOLDERS[::-1] if any(name.startswith(h) for name in state)), "")
    state = {name.removeprefix(holder): value for name, value in state.items() if name.startswith(holder)}
    if not state:
        what = f"has nothing below prefix={prefix!r}" if prefix else "holds no dictionary of tensors by name"
        raise InputError(f"{source} {what}")
    if prefix and all(name.startswith("model.") for name in state):
        state = {name.removeprefix("model."): value for name, value in state.items()}
    return state
