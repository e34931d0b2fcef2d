"""``--policy auto``: the policy for each resolution, chosen from images without their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from visionpe.policy.choose import compare_policies
from visionpe.policy.selection import DRAWS, LEAST_CONFIDENCE, PolicyChoice
from visionpe.scaling.images import Source, batches
from visionpe.scaling.options import DEFAULT
from visionpe.scaling.plan import Task
from visionpe.scaling.protocols import ViewSpec
from visionpe.scaling.sizes import factor_of, limits_at
from visionpe.scaling.store import VERSIONS, Store, key_of
from visionpe.utils.errors import InputError

RULE = "knowledge of two views"  # by which choices that were kept are told from those of another rule


@dataclass(frozen=True)
class PolicyChooser:
    """Chooses for one model, protocol and size at a time, and remembers in the store.

    Args:
        source: Unlabelled images; their labels are never read.
        count: How many of them; at most half as many as are evaluated, where each costs more (``limit_from``).
        limit_from: From which factor of the trained size on how many images are evaluated.
        seed: Of the choice of images and of the bootstrap.
        batch_size: Images a batch.
        workers: Processes that prepare images.
        device: Where to run.
        store: Where choices are kept.
    """

    source: Source
    count: int
    limit_from: Sequence[tuple[float, int]]
    seed: int
    batch_size: int
    workers: int
    device: torch.device
    store: Store

    def images(self, task: Task) -> int:
        """How many images choose for a row."""
        factor = factor_of(task.size, task.entry.info.trained)
        return min([self.count, *(max(n // 2, 2) for n in limits_at(factor, self.limit_from))])

    def key(self, task: Task, spec: ViewSpec) -> str:
        """What decides a choice."""
        return key_of(
            {
                **task.entry.key(),
                "auto": [task.protocol, task.size, self.source.fingerprint, self.images(task), self.seed],
                "rule": [RULE, LEAST_CONFIDENCE, DRAWS],
                "view": spec.key(),
                "versions": VERSIONS,
            }
        )

    def __call__(self, task: Task, model: nn.Module, spec: ViewSpec) -> PolicyChoice:
        """The choice for a row.

        Args:
            task: Its entry, protocol and size.
            model: The entry, built; its policy is changed.
            spec: How the entry wants its images.

        Raises:
            InputError: If an image cannot be read.
        """
        if task.is_native or not task.entry.info.policies:
            return PolicyChoice(DEFAULT, 0.0, 1.0, False)
        kept = self.store.load(key := self.key(task, spec), *(x.name for x in fields(PolicyChoice)))
        if kept is not None:
            return PolicyChoice(**kept)
        choice = self._choose(task, model, spec)
        self.store.save(key, asdict(choice))
        return choice

    def _choose(self, task: Task, model: nn.Module, spec: ViewSpec) -> PolicyChoice:
        shown = batches(
            self.source,
            protocol=task.protocol,
            size=task.size,
            spec=spec,
            indices=self.source.subset(self.images(task), self.seed),
            batch_size=self.batch_size,
            workers=self.workers,
            skip_corrupt=True,
        )
        images = [batch for batch, _, _ in shown if len(batch)]
        if not images:
            raise InputError(f"--auto-data {self.source.name}: no readable images to choose a policy by")
        return compare_policies(model, images, task.entry.info.trained, device=self.device, seed=self.seed)


def columns(choice: PolicyChoice) -> dict[str, Any]:
    """What a row says of its choice."""
    return {"chosen": choice.policy, "chosen_sure": choice.sure, "warns": choice.warns}
