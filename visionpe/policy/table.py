"""A policy for each image size, kept as a small JSON file, and a model that follows it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import log
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visionpe.checks import shown
from visionpe.policy.grammar import DEFAULT, parse_policy
from visionpe.policy.holder import HasPolicy
from visionpe.policy.selection import PolicyChoice
from visionpe.policy.sizes import Size, as_size
from visionpe.utils.errors import InputError, MissingFileError
from visionpe.utils.files import write_atomic


class PolicyTable(Mapping[Size, str]):
    """Image size -> resolution policy; between the sizes that it knows the nearest area counts.

    Example::

        table = visionpe.PolicyTable()
        for size in (384, 512, (480, 640)):
            table[size] = visionpe.choose_policy(model, images, size)
        table.save("policies.json")

        visionpe.set_policy(model, "policies.json")  # in the service: every image gets the policy of its size

    Args:
        policies: Sizes (``448``, ``(384, 512)``, ``"384x512"``) and their policies or choices.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If a size or a policy cannot be read.
    """

    def __init__(self, policies: Mapping[Any, str | PolicyChoice] | None = None) -> None:
        self._policies: dict[Size, str] = {}
        if policies is not None and not isinstance(policies, Mapping):
            raise TypeError(f"policies={shown(policies)} is no mapping; allowed: {{'384x512': 'yarn', ...}}")
        for size, policy in (policies or {}).items():
            self[size] = policy

    def __setitem__(self, size: Any, policy: str | PolicyChoice) -> None:
        name = policy.policy if isinstance(policy, PolicyChoice) else policy
        if not isinstance(name, str):
            raise ValueError(
                f"policy={shown(name)} at size {shown(size)}; allowed: a name such as 'yarn+temperature', or a choice"
            )
        if name != DEFAULT:
            parse_policy(name)
        self._policies[as_size(size)] = name

    def __getitem__(self, size: Any) -> str:
        return self._policies[as_size(size)]

    def __iter__(self) -> Iterator[Size]:
        return iter(self._policies)

    def __len__(self) -> int:
        return len(self._policies)

    def nearest(self, size: Any) -> str:
        """The policy of the size that is nearest in area, on a logarithmic scale; of equally near ones the smaller.

        Raises:
            ValueError: If the table is empty.
        """
        height, width = as_size(size)
        if not self._policies:
            raise ValueError("the policy table is empty; allowed: one size or more")
        if (height, width) in self._policies:
            return self._policies[height, width]
        area = log(height * width)
        best = min(self._policies, key=lambda known: (abs(log(known[0] * known[1]) - area), known))
        return self._policies[best]

    def save(self, path: str | Path) -> None:
        """Write ``{"384x512": "yarn+temperature", ...}``."""
        content = {f"{height}x{width}": policy for (height, width), policy in sorted(self._policies.items())}
        write_atomic(Path(path), json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> PolicyTable:
        """Read what :meth:`save` wrote.

        Raises:
            visionpe.utils.errors.MissingFileError: If there is no such file.
            ValueError: If it cannot be read, or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text())
            if not isinstance(content, dict):
                raise ValueError("no table")
            return cls(content)
        except FileNotFoundError:
            raise MissingFileError(
                f"policy={str(path)!r}: there is no such file; allowed: that of a policy table"
            ) from None
        except OSError as error:
            raise InputError(f"policy={str(path)!r} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise ValueError(
                f'policy={str(path)!r} is no policy table ({error}); allowed: {{"384x512": "yarn+temperature", ...}}'
            ) from None

    def __repr__(self) -> str:
        return f"PolicyTable({self._policies!r})"


class FollowsTable:
    """A forward pre-hook of the patch embedding, the first to see the images: sets the policy of their size.

    Args:
        table: The policies.
        parts: Those of the model that have policies.
    """

    def __init__(self, table: PolicyTable, parts: list[HasPolicy]) -> None:
        self.parts = parts
        # By size and part, worked out beforehand: a forward pass assigns and no more.
        self.table, self.terms = table, dict[str, list[Any]]()

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        images = inputs[0]
        if isinstance(images, Tensor):
            name = self.table.nearest(tuple(images.shape[-2:]))
            for part, policy in zip(self.parts, self.terms[name]):
                if part.policy != policy:
                    part.policy = policy
