"""``--policy auto``: the policy for each resolution, chosen from images without their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import visionpe
from scaling.data import Source, batches
from scaling.errors import InputError
from scaling.memory import is_out_of_memory
from scaling.plan import DEFAULT, Task
from scaling.protocols import ViewSpec, resize
from scaling.selection import DRAWS, KNOWS_MORE, SURE, Verdict, choose
from scaling.sizes import factor_of
from scaling.store import VERSIONS, Store, key_of
from visionpe.adapting import adaptable

# With as many tokens as in training a model sees what it sees of the image resized to the trained size.
IMITATES = "patch_resize"
# Further values of what takes a number; the name alone stands for its default.
VALUES = {"rescale": ("rescale(0.25)", "rescale(0.75)"), "temperature": ("temperature(-1)", "temperature(2)")}


def first_round(model: nn.Module) -> list[str]:
    """What is tried on a model alone, the model as built first."""
    parts = adaptable(model.modules())
    names = [DEFAULT, *dict.fromkeys(name for part in parts for name in part.policies)]
    names += [value for name in VALUES if name in names for value in VALUES[name]]
    in_force = {part.built_policy for part in parts}
    return [name for name in names if name not in in_force]


def second_round(model: nn.Module, best: str) -> list[str]:
    """What is tried besides the best of the first round."""
    names = list(dict.fromkeys(name for part in adaptable(model.modules()) for name in part.modifiers))
    names += [value for name in VALUES if name in names for value in VALUES[name]]
    return names if best == DEFAULT else [f"{best}+{name}" for name in names]


@dataclass(frozen=True)
class Chooser:
    """Chooses for one model, protocol and size at a time, and remembers in the store.

    Args:
        source: Unlabelled images; their labels are never read.
        count: How many of them; at most half as many as are evaluated, where each costs more (``fewer``).
        fewer: From which factor of the trained size on how many images are evaluated.
        seed: Of the choice of images and of the bootstrap.
        batch_size: Images a batch.
        workers: Processes that prepare images.
        device: Where to run.
        store: Where choices are kept.
    """

    source: Source
    count: int
    fewer: Sequence[tuple[float, int]]
    seed: int
    batch_size: int
    workers: int
    device: torch.device
    store: Store

    def images(self, task: Task) -> int:
        """How many images choose for a row."""
        factor = factor_of(task.size, task.subject.facts.trained)
        return min([self.count, *(max(n // 2, 2) for least, n in self.fewer if factor >= least - 1e-6)])

    def key(self, task: Task, spec: ViewSpec) -> str:
        """What decides a choice."""
        return key_of(
            {
                **task.subject.key(),
                "auto": [task.protocol, task.size, self.source.fingerprint, self.images(task), self.seed],
                "rule": [KNOWS_MORE, SURE, DRAWS],
                "view": spec.key(),
                "versions": VERSIONS,
            }
        )

    def __call__(self, task: Task, model: nn.Module, spec: ViewSpec) -> Verdict:
        """The choice for a row.

        Args:
            task: Its subject, protocol and size.
            model: The subject, built; its policy is changed.
            spec: How the subject wants its images.

        Raises:
            InputError: If an image cannot be read.
        """
        if task.is_native or not task.subject.facts.policies:
            return Verdict(DEFAULT, "none", 0.0, 1.0, False)
        kept = self.store.load(key := self.key(task, spec))
        if kept is not None:
            return Verdict(**kept)
        verdict = self._choose(task, model, spec)
        self.store.save(key, asdict(verdict))
        return verdict

    @torch.inference_mode()
    def _choose(self, task: Task, model: nn.Module, spec: ViewSpec) -> Verdict:
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
        visionpe.set_policy(model, DEFAULT)
        small = [resize(batch, task.subject.facts.trained) for batch in images]
        reference = torch.cat([model(batch.to(self.device)).float().cpu() for batch in small])
        logits: dict[str, Tensor] = {}
        self._try(first_round(model), model, images, logits)
        first = choose(logits, reference, seed=self.seed)
        self._try(second_round(model, first.policy), model, images, logits)
        return choose(logits, reference, imitators=[name for name in logits if IMITATES in name], seed=self.seed)

    def _try(self, names: Sequence[str], model: nn.Module, images: Sequence[Tensor], logits: dict[str, Tensor]) -> None:
        """Logits under each policy; one that cannot run here is left out, but never the default."""
        for name in names:
            visionpe.set_policy(model, DEFAULT)
            visionpe.set_policy(model, name)
            try:
                outputs = torch.cat([model(batch.to(self.device)).float().cpu() for batch in images])
            except Exception as error:
                if name == DEFAULT or is_out_of_memory(error):
                    raise
                continue
            if outputs.isfinite().all():
                logits[name] = outputs


def columns(verdict: Verdict) -> dict[str, Any]:
    """What a row says of its choice."""
    return {"chosen": verdict.policy, "chosen_by": verdict.by, "chosen_sure": verdict.sure, "warns": verdict.warns}
