"""What was looked at as one page that needs nothing else: choose view, layer and head, click a patch."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionpe.looking.views import View, cells
from visionpe.viewing.features import ColourBasis
from visionpe.viewing.html import as_json, write_html

TEMPLATE = Path(__file__).with_name("page.html")
SIDE = 32  # patches a side whose likeness the page knows, at most; more are averaged
DIRECTIONS = 32  # of features, by which it knows it


def _picture(pixels: np.ndarray, kind: str) -> str:
    """``(height, width, 3)``, uint8, as a data URL."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=kind, **({"quality": 85} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def _bytes(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _likeness(maps: Tensor) -> tuple[dict[str, Any], float]:
    """Features short enough for the page, whose products are nearly the cosines of whole ones, and the share kept."""
    size = min(maps.shape[2], SIDE), min(maps.shape[3], SIDE)
    tokens = torch.nn.functional.adaptive_avg_pool2d(maps, size)[0].flatten(1).mT.double()  # (patches, channels)
    tokens = torch.nn.functional.normalize(tokens, dim=1)
    _, values, directions = torch.linalg.svd(tokens, full_matrices=False)
    kept = min(DIRECTIONS, len(values))
    short = tokens @ directions[:kept].mT
    packed = (short * 127).round().clamp(-127, 127).to(torch.int8).cpu().numpy()
    share = float(values[:kept].square().sum() / values.square().sum().clamp_min(1e-300))
    return {"size": size, "width": kept, "data": _bytes(packed)}, share


def _view(view: View, bases: Sequence[ColourBasis]) -> dict[str, Any]:
    layers = []
    for number, maps, basis in zip(view.layers, view.maps, bases):
        alike, kept = _likeness(maps)
        colours = _picture(basis.colours(maps)[0], "PNG")
        layers.append({"name": str(number), "colours": colours, "alike": alike, "kept": round(kept, 4)})
    attention: dict[str, Any] = {}
    for number in view.whole:
        data, queries, keys = cells(view.attention[number])
        attention[str(number)] = {
            "heads": view.attention[number].heads,
            "prefix": view.attention[number].grid.prefix,
            "queries": queries,
            "keys": keys,
            "data": _bytes(data),
        }
    pixels = (view.picture * 255).round().astype(np.uint8)
    return {
        "name": view.name,
        "picture": _picture(pixels, "JPEG"),
        "size": list(view.size),
        "layers": layers,
        "attention": attention,
        "unseen": view.unseen or ("" if attention else "attention is within windows, or of pooled patches"),
    }


def write_page(
    path: Path, title: str, views: Sequence[View], bases: Sequence[ColourBasis], settings: Mapping[str, Any]
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file.
        title: Of the page.
        views: With the same layers.
        bases: Colours of each layer.
        settings: Where they came from, at the end of the page.
    """
    details = html.escape(json.dumps(settings, indent=2, default=str, ensure_ascii=False))
    write_html(path, TEMPLATE, title, {"DETAILS": details, "DATA": as_json([_view(view, bases) for view in views])})
