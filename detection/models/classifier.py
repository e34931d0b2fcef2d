"""Any timm model as an mmpretrain classifier."""

from __future__ import annotations

import difflib
from typing import Any

import timm
from mmengine.logging import print_log
from mmengine.registry import MODELS
from mmpretrain.models.classifiers.timm import TimmClassifier

from visionpe.detection.models.init_cfg import KeepsLoadedWeights
from visionpe.detection.running.checkpoint import load_weights, read_state
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.timm_models import load_checkpoint


def check_model_name(model_name: str) -> None:
    """Refuse a name that timm does not know.

    Args:
        model_name: Name for ``timm.create_model``; a pretrained tag, or a source such as ``hf-hub:``, may be part.

    Raises:
        ValueError: If timm knows no such model; names the nearest ones.
    """
    architecture = model_name.split(".")[0]
    if ":" in model_name or timm.is_model(architecture):
        return
    near = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists the names"
    raise ValueError(f"model_name={model_name!r} is unknown to timm; {hint}")


def _names_of_timm(module: TimmImageClassifier, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """State-dict hook: timm's names, without the ``model.`` of this module, wherever it stands in another."""
    own, names = prefix + "model.", list(state)
    for name in names:  # in their order
        state[name.replace(own, prefix, 1) if name.startswith(own) else name] = state.pop(name)


def _own_names(module: TimmImageClassifier, state: dict[str, Any], prefix: str, local_metadata: Any, *_: Any) -> None:
    """The inverse, before loading: names of timm, or of this module, get the latter's."""
    children = [f"{prefix}{name}." for name, _ in module.named_children()]
    for name in [name for name in state if name.startswith(prefix)]:
        if not name.startswith(tuple(children)):
            state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)


@MODELS.register_module()
class TimmImageClassifier(KeepsLoadedWeights, TimmClassifier):
    """A timm model with a loss: mmpretrain's ``TimmClassifier`` that keeps the weights it was given.

    timm initialises (or loads) a model when it builds it. mmengine's ``Runner.train`` would initialise it again and
    wipe loaded weights; here ``init_weights`` only obeys ``init_cfg``.

    Args:
        model_name: Name for ``timm.create_model``.
        loss: Config of the loss.
        train_cfg: ``dict(augments=[...])`` for batch augmentations such as mixup.
        with_cp: Recompute activations in the backward pass to save memory.
        data_preprocessor: Config of the data preprocessor; ``ClsDataPreprocessor`` by default.
        init_cfg: Config of the initialisation; ``dict(type="Pretrained", checkpoint=...)`` loads weights and
            refuses those that do not fit, the classifier's own excepted.
        **kwargs: Further keywords for ``timm.create_model``, such as ``pretrained``, ``checkpoint_path``,
            ``img_size``, ``drop_path_rate`` or a model's own.

    Raises:
        ValueError: If ``model_name`` is unknown, or the weights of ``checkpoint_path`` do not fit.
    """

    def __init__(
        self,
        model_name: str,
        *,
        loss: dict | None = None,
        train_cfg: dict | None = None,
        with_cp: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        check_model_name(model_name)
        self_loaded = kwargs.pop("checkpoint_path", None)
        super().__init__(
            model_name,
            loss=loss or {"type": "mmpretrain.CrossEntropyLoss"},
            train_cfg=train_cfg,
            with_cp=with_cp,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
            **kwargs,
        )
        # mmpretrain's hooks rename in a module that stands alone, and not inside of a moving average.
        self._state_dict_hooks.clear()
        self._load_state_dict_pre_hooks.clear()
        self.register_state_dict_post_hook(_names_of_timm)
        self.register_load_state_dict_pre_hook(_own_names)
        self.model_name = model_name
        self.model_kwargs = kwargs
        if self_loaded:
            try:
                load_checkpoint(self.model, self_loaded)
            except RuntimeError as error:
                raise InputError(f"checkpoint_path={str(self_loaded)!r}: {first_line(error)}") from None

    def load_weights(self, checkpoint: str, *, prefix: str = "") -> None:
        """Load weights into the classifier: all but its head must be there.

        Args:
            checkpoint: A file or URL that mmengine knows.
            prefix: Only what is below this name in the file.

        Raises:
            ValueError: If they do not fit.
        """
        state = {
            name.removeprefix(prefix): value
            for name, value in read_state(checkpoint).items()
            if name.startswith(prefix)
        }
        heads = getattr(self.model, "pretrained_cfg", {}).get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        load_weights(self, state, source=f"init_cfg: checkpoint {checkpoint!r}", optional=heads)
        print_log(f"Loaded {len(state)} tensors from {checkpoint}", logger="current")
