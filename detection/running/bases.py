"""``visionpe::`` and ``mmseg::`` in ``_base_`` where the start-up line (build_backend/startup.py) did not run."""

from __future__ import annotations

import functools

from mmengine.config import Config
from mmengine.config import utils as config_utils


def install() -> None:
    """Make mmengine find our configs, and those of the maintained fork of mmsegmentation."""
    # The fork is found by its module's name, not by the old distribution's.
    config_utils.MODULE2PACKAGE["mmseg"] = "mmseg"
    config_utils.MODULE2PACKAGE["visionpe"] = "visionpe"
    # Lists of what a package brings, dozens of YAML files: mmengine reads them anew for each "mmdet::" of each config.
    if not hasattr(config_utils.load, "cache_info"):
        config_utils.load = functools.cache(config_utils.load)
    find = Config._get_cfg_path
    if find.__name__ == "find_unscoped":
        return

    def find_unscoped(cfg_path: str, filename: str) -> tuple[str, str | None]:
        """The types in our configs are OpenMMLab's: there is no scope of ours to look for them."""
        file, scope = find(cfg_path, filename)
        return file, None if scope == "visionpe" else scope

    Config._get_cfg_path = staticmethod(find_unscoped)
