"""The learning rate of a cycle, around the rate of each group of parameters."""

from __future__ import annotations

from typing import Any

from mmengine.optim import OneCycleLR
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class GroupOneCycleLR(OneCycleLR):
    """mmengine's ``OneCycleLR``, of which the largest rate of a group is the one that the optimizer has for it.

    ``eta_max`` of mmengine's is one rate for all groups, or a list with one for each parameter that has a group.

    Args:
        kwargs: Of ``OneCycleLR``, without ``eta_max``: ``total_steps``, ``pct_start``, ``div_factor``, ...
    """

    def _format_param(self, name: str, optimizer: Any, param: Any) -> list[float]:
        return [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
