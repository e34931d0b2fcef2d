"""Files that should hold weights and do not: of every kind, by name."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save


def _torch(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "hello")
    return stream.getvalue()


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, weight=np.zeros(200))
    return stream.getvalue()


def _png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (30, 30)).save(stream, "PNG")
    return stream.getvalue()


def broken_weights() -> dict[str, tuple[bytes, str]]:
    """By name: the bytes, and what the error says."""
    weights = {"weight": torch.zeros(200)}
    whole, old = _torch(weights), _torch(weights, _use_new_zipfile_serialization=False)
    safe, npz = save(weights), _npz()
    html = b"<!DOCTYPE html>\n<html><body>404</body></html>"
    none = "holds no dictionary of tensors"
    return {
        "empty.pth": (b"", "is empty"),
        "half.pth": (whole[: len(whole) // 2], "a zip archive without its end"),
        "last.pth": (whole[:-1], "a zip archive without its end"),
        "old.pth": (old[: len(old) // 2], "unexpected EOF"),
        "old_head.pth": (old[:40], "cut off"),
        "text.pth": (b"epoch 3\nloss 0.1\n", "text: 'epoch 3 loss 0.1'"),
        "html.pth": (html, "a page of HTML"),
        "image.pth": (_png(), "a PNG image"),
        "zip.pth": (_zip(), "a zip archive, but none of PyTorch's"),
        "npz.pth": (npz, "must be named .npz"),
        "safe.pth": (safe, "must be named .safetensors"),
        "pickle.pth": (pickle.dumps([1, 2, 3]), "a pickle, but none of PyTorch's"),
        "zeros.pth": (bytes(600), "of no kind that is known"),
        "list.pth": (_torch([torch.zeros(3)]), none),
        "tensor.pth": (_torch(torch.zeros(3)), none),
        "numbers.pth": (_torch({"a": 1, "b": [2]}), none),
        "none.pth": (_torch({"state_dict": None}), none),
        "nothing.pth": (_torch({}), none),
        "keys.pth": (_torch({1: torch.zeros(3)}), none),
        "empty.safetensors": (b"", "is empty"),
        "header.safetensors": (safe[:40], "ends behind the file"),
        "data.safetensors": (safe[:-100], f"{len(safe) - 100} bytes, where its header tells of {len(safe)}"),
        "text.safetensors": (b"hello world", "text: 'hello world'"),
        "html.safetensors": (html, "a page of HTML"),
        "torch.safetensors": (whole, "no file of safetensors"),
        "short.safetensors": (b"abc", "no file of safetensors"),
        "empty.npz": (b"", "is empty"),
        "half.npz": (npz[: len(npz) // 2], "a zip archive without its end"),
        "text.npz": (b"hello", "no file of numpy"),
        "other.npz": (npz, "'other.npz'"),
        "torch.npz": (whole, "a zip archive, but none of numpy's"),
    }


def write_broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """The same as files in a folder, and a folder among them."""
    found = {}
    for name, (content, word) in broken_weights().items():
        (folder / name).write_bytes(content)
        found[name] = (folder / name, word.replace("'other.npz'", "other.npz"))
    (folder / "folder.pth").mkdir()
    return {**found, "folder.pth": (folder / "folder.pth", "is a folder")}
