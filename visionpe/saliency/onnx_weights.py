"""The arrays of an ONNX file by the names of the modules that they belong to; the network in it is not run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionpe.utils.errors import InputError, MissingFileError, first_line

Arrays = dict[str, Tensor]
INSTALL = "pip install 'visionpe[weights]'"
# How PyTorch's exporter calls what it folded or transposed, and what had no name of its own.
UNNAMED = "onnx::"


def read_onnx_weights(path: str | Path) -> Arrays:
    """All initialisers of an ONNX file that PyTorch's exporter wrote.

    The exporter keeps the name of every parameter but those that it changes: the weight of a linear layer is transposed
    for ``MatMul`` and called ``onnx::MatMul_123``, and what it computed ahead has such a name too. These are named here
    by the node that reads them: a linear weight by its module (``encoder.layer.0.mlp.fc1.weight``, transposed back, so
    ``(out, in)``), another by the module and the kind of the node (``embeddings.Reshape``).

    Args:
        path: The file. Arrays that it keeps in other files are not read.

    Returns:
        Name -> array, as the file orders them.

    Raises:
        MissingFileError: If there is no such file.
        InputError: If onnx is not installed, it is no ONNX file, keeps its arrays elsewhere, or two have one name.
    """
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as error:
        raise InputError(f"reading {str(path)!r} needs onnx ({first_line(error)}); {INSTALL}") from None
    path = Path(path)
    if not path.is_file():
        reason = "is a folder; allowed: a file" if path.is_dir() else "does not exist"
        raise MissingFileError(f"ONNX file {str(path)!r} {reason}")
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # of protobuf, which has no class of its own for it in all releases
        raise InputError(f"{str(path)!r} is no ONNX file, or cut off ({first_line(error, 80)})") from None
    readers: dict[str, Any] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, node)
    arrays: Arrays = {}
    for each in graph.initializer:
        if each.data_location == onnx.TensorProto.EXTERNAL:
            raise InputError(f"{str(path)!r} keeps {each.name!r} in another file; allowed: arrays inside the file")
        name, value = each.name, torch.from_numpy(to_array(each).copy())
        if name.startswith(UNNAMED) and name in readers:
            name, value = _named_by(readers[name], value)
        if name in arrays:
            raise InputError(f"{str(path)!r} holds two arrays for {name!r}; allowed: one")
        arrays[name] = value
    if not arrays:
        raise InputError(f"{str(path)!r} holds no weights")
    return arrays


def _named_by(node: Any, value: Tensor) -> tuple[str, Tensor]:
    """Name and value of an array after the node that reads it, ``/encoder/layer.0/mlp/fc1/MatMul``."""
    *scope, _ = node.name.strip("/").split("/")
    if node.op_type == "MatMul" and value.ndim == 2:
        return ".".join([*scope, "weight"]), value.T.contiguous()  # (out, in)
    return ".".join([*scope, node.op_type]), value


def take(arrays: Arrays, prefix: str) -> Arrays:
    """Those below a module, without its name."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def check_names(found: Sequence[str], wanted: Sequence[str], what: str) -> None:
    """Refuse arrays that are not those of a network.

    Raises:
        InputError: Naming the first that is missing or that nothing takes.
    """
    missing = [name for name in wanted if name not in set(found)]
    further = [name for name in found if name not in set(wanted)]
    if missing or further:
        said = [f"lacks {missing[0]!r}" if missing else "", f"has {further[0]!r} too many" if further else ""]
        raise InputError(f"{what} {' and '.join(filter(None, said))} ({len(missing)} missing, {len(further)} too many)")
