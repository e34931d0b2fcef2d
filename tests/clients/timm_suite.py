"""Run timm's ``tests/test_models.py`` with its list of models replaced: ``python timm_suite.py FILE NAME ...``."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import timm

import visionpe  # noqa: F401


def main(path: str, names: list[str]) -> int:
    def list_models(
        filter: Any = "", module: Any = "", pretrained: bool = False, exclude_filters: Any = "", **_: Any
    ) -> list[str]:
        """As timm's, of these names: none has a pretrained file; plain ViTs are those that timm calls non-standard."""
        if pretrained:
            return []
        pyramids = [name for name in names if "swin" in name]
        if not module and "vit_*" in list(exclude_filters):
            return pyramids
        return [name for name in names if name not in pyramids] if "vit_*" in list(filter) else names

    timm.list_models, timm.list_pretrained = list_models, lambda *_, **__: []  # type: ignore[assignment]
    others = "not naflex and not gemma and not with_features_fx"  # of models that are named in the file
    return pytest.main([path, "-q", "-rA", "--tb=no", "-k", others, "-p", "no:cacheprovider", "-W", "ignore"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
