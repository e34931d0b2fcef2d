"""How a model that timm has built, and perhaps loaded, takes mmengine's ``init_cfg``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule, PretrainedInit, initialize


def is_pretrained(config: Mapping[str, Any]) -> bool:
    """Whether an ``init_cfg`` loads a file: its type by name, by a name with a scope, or as a class."""
    kind = config.get("type")
    if isinstance(kind, str):
        return kind.rpartition(".")[2] in ("Pretrained", PretrainedInit.__name__)
    return isinstance(kind, type) and issubclass(kind, PretrainedInit)


class KeepsLoadedWeights(BaseModule):
    """A module whose ``init_weights`` obeys ``init_cfg`` alone, so that nothing wipes what timm loaded."""

    _is_init: bool  # mmengine's mark that init_weights has run

    @abstractmethod
    def load_weights(self, checkpoint: str, *, prefix: str = "") -> None:
        """Load weights that must fit; of the file, what is below ``prefix``.

        Raises:
            ValueError: If they do not fit.
        """

    def init_weights(self) -> None:
        """Apply ``init_cfg`` once; without one leave the weights as they were built or loaded.

        Raises:
            ValueError: If a ``Pretrained`` checkpoint does not fit.
        """
        if self._is_init:
            return
        configs = [self.init_cfg] if isinstance(self.init_cfg, dict) else list(self.init_cfg or [])
        # Pretrained weights go last, so that nothing overwrites them.
        for config in sorted(configs, key=is_pretrained):
            if is_pretrained(config):
                self.load_weights(config["checkpoint"], prefix=config.get("prefix") or "")
            else:
                initialize(self, config)
        self._is_init = True
