"""Predictions as one html page that needs nothing else: pictures to filter by class and name, and to enlarge."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionpe.viewing.html import as_json, write_html

TEMPLATE = Path(__file__).with_name("predictions.html")


@dataclass(frozen=True)
class Entry:
    """One picture.

    Args:
        name: Above the words.
        found: What was found, in words.
        classes: By which it is filtered: those found, and the true ones where they are known.
        pictures: What is shown ("prediction", "ground truth", ...) -> a JPEG; the first one is shown first.
        right: Whether the prediction is right; None where nobody knows, or it cannot be said in a word.
    """

    name: str
    found: str
    classes: Sequence[str]
    pictures: Mapping[str, bytes]
    right: bool | None = None


def write_predictions(path: Path, title: str, entries: Sequence[Entry], settings: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file.
        title: Of the page.
        entries: The pictures, in their order.
        settings: Where the predictions came from, at the end of the page.
    """
    data = [
        {
            "name": each.name,
            "found": each.found,
            "classes": list(each.classes),
            "pictures": {key: base64.b64encode(jpeg).decode() for key, jpeg in each.pictures.items()},
            "right": each.right,
        }
        for each in entries
    ]
    details = html.escape(json.dumps(settings, indent=2, default=str, ensure_ascii=False))
    write_html(path, TEMPLATE, title, {"DETAILS": details, "DATA": as_json(data)})
