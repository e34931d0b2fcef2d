"""What stands around a model while it runs."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper


def unwrap_model(model: Any) -> Any:
    """The model inside wrappers such as DDP, and inside what merges its predictions of several views."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
