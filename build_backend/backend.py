"""setuptools' build backend; its wheels bring one more file, ``visionpe.pth``: the start-up line of ``startup.py``."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  the hooks that stay as they are


def _startup_line() -> str:
    source = Path(__file__).with_name("startup.py").read_text()
    return f"import sys; exec({source!r}, {{}})\n"  # names of its own: its classes find each other


def _add_startup(wheel: Path) -> None:
    """Put the line into ``<name>.data/purelib``, from where pip moves it into site-packages."""
    changed = wheel.with_name(f".{wheel.name}")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as new:
        record = next(name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
        place = f"{record.removesuffix('.dist-info/RECORD')}.data/purelib/visionpe.pth"
        content = _startup_line().encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        for item in old.infolist():
            data = old.read(item)
            if item.filename == record:
                data += f"{place},sha256={digest},{len(content)}\n".encode()
            new.writestr(item, data)
        new.writestr(place, content)
    os.replace(changed, wheel)


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """A wheel, with the start-up line."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _add_startup(Path(wheel_directory, name))
    return name


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """An editable wheel, with the start-up line."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _add_startup(Path(wheel_directory, name))
    return name
