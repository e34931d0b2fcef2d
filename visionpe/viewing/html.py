"""Pages that need nothing else: one head for all, and values put in so that none of them can end or change the page."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionpe.utils.files import write_atomic

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ font: 14px/1.45 system-ui, sans-serif; }}
</style>
"""


def as_json(data: Any) -> str:
    """Data for a ``<script type="application/json">``: nothing in it can end the script."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def write_html(path: Path, template: Path, title: str, parts: Mapping[str, str]) -> None:
    """Write a page, whole or not at all.

    Args:
        path: The file.
        template: What follows the common head: styles, ``</head>`` and the body, with a mark ``@NAME@`` for each part.
        title: Of the page, as text; also at ``@TITLE@``.
        parts: Name of a mark -> HTML, or JSON of :func:`as_json`. What is put in is not searched for marks.
    """
    title = html.escape(title)
    values = {"TITLE": title, **parts}
    body = re.sub("@([A-Z]+)@", lambda mark: values[mark[1]], template.read_text(encoding="utf-8"))
    write_atomic(path, HEAD.format(title=title) + body)
