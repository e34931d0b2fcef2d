"""``visionpe::`` and ``mmseg::`` in ``_base_`` where the start-up line (build_backend/startup.py) did not run."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE


def install() -> None:
    """Make mmengine find our configs, and those of the maintained fork of mmsegmentation."""
    # The fork is found by its module's name, not by the old distribution's.
    MODULE2PACKAGE["mmseg"] = "mmseg"
    if "visionpe" in MODULE2PACKAGE:
        return
    MODULE2PACKAGE["visionpe"] = "visionpe"
    find = Config._get_cfg_path

    def find_unscoped(cfg_path: str, filename: str) -> tuple[str, str | None]:
        """The types in our configs are OpenMMLab's: there is no scope of ours to look for them."""
        file, scope = find(cfg_path, filename)
        return file, None if scope == "visionpe" else scope

    Config._get_cfg_path = staticmethod(find_unscoped)
