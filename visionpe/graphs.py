"""What ``torch.fx`` and TorchScript make of our modules: one node each, and a refusal."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar

from torch import nn
from torch.fx import Proxy

Forward = TypeVar("Forward", bound=Callable[..., Any])


def one_node(forward: Forward) -> Forward:
    """Under ``torch.fx``, a call of this ``forward`` is one node of the graph, with what is inside left as it is.

    fx records operations on inputs whose size it does not know, where positions depend on sizes. A module among the
    arguments becomes a node that reads it from the model.
    """

    @wraps(forward)
    def traced(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # The tensor comes first, or after the name of a site. To look at more would tie a compiled graph to it.
        first = args[1] if len(args) > 1 and isinstance(args[0], str) else args[0]
        if not isinstance(first, Proxy):
            return forward(self, *args, **kwargs)
        tracer: Any = first.tracer

        def node(argument: Any) -> Any:
            if not isinstance(argument, nn.Module):
                return argument
            return tracer.create_proxy("get_attr", tracer.path_of_module(argument), (), {})

        target = tracer.path_of_module(self)
        return tracer.create_proxy(
            "call_module", target, tuple(map(node, args)), {key: node(value) for key, value in kwargs.items()}
        )

    return traced  # type: ignore[return-value]


def no_node(forward: Forward) -> Forward:
    """Refuse ``torch.fx`` in one sentence, where what is inside depends on sizes and cannot be one node."""

    @wraps(forward)
    def refusing(self: nn.Module, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Proxy):
            raise NotImplementedError(
                f"torch.fx cannot trace {type(self).__name__}: what its attention is told of the tokens follows their "
                "number; allowed: torch.export.export, or features_only=True for features"
            )
        return forward(self, x, *args, **kwargs)

    return refusing  # type: ignore[return-value]


class Unscriptable:
    """Mixin of modules that ``torch.jit.script`` cannot compile: it says so in one sentence."""

    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            f"torch.jit.script cannot compile {type(self).__name__}: encodings are objects and tables follow the size "
            "of the image, which TorchScript has no types for; allowed: torch.export.export, torch.compile, or "
            "torch.jit.trace for images of one size"
        )
