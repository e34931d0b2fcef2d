"""The rows of the saliency study: each measured once, and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from visionpe import PolicyTable, set_policy
from visionpe.saliency.cutouts import CutOut, make_cutouts
from visionpe.saliency.measuring import choose, measure
from visionpe.saliency.model import FINE_TUNED, SaliencyModel
from visionpe.saliency.options import SaliencyOptions
from visionpe.scaling.options import AUTO, DEFAULT, DOWNSCALE
from visionpe.scaling.sizes import Size, factor_of, limits_at, parse_factor_limit
from visionpe.scaling.store import VERSIONS, Store, key_of
from visionpe.scaling.sweep import FAILED, OK, OUT_OF_MEMORY
from visionpe.utils.errors import first_line
from visionpe.utils.memory import is_out_of_memory

Row = dict[str, Any]
LABEL = "vit_s_focus"


def _digest(picture: CutOut) -> str:
    return hashlib.sha256(picture.image.numpy().tobytes() + picture.mask.numpy().tobytes()).hexdigest()


class Measurer:
    """Fills rows of one model, smallest sizes first.

    Args:
        options: Of the study, with ``objects`` and ``backgrounds``.
        model: To measure.
        sha256: Of its weights.
        device: Where it is.

    Raises:
        InputError: If there are too few pictures.
    """

    def __init__(self, options: SaliencyOptions, model: SaliencyModel, sha256: str, device: torch.device) -> None:
        self.options, self.model, self.sha256, self.device = options, model, sha256, device
        total = options.images + options.auto_images
        every = make_cutouts(options.objects or "", options.backgrounds or "", total, seed=options.seed)
        self.shown, self.choosing = every[: options.images], every[options.images :]
        self.digests = [_digest(picture) for picture in every]
        self.limits = [parse_factor_limit(text) for text in options.limit_from]
        self.store, self.chosen = Store(options.out), PolicyTable()

    def count(self, size: Size) -> int:
        """How many pictures are measured at a size."""
        factor = factor_of(size, FINE_TUNED)
        return min([self.options.images, *limits_at(factor, self.limits)])

    def row(self, policy: str, size: Size) -> Row:
        """One row; what a model refuses, or has no memory for, becomes its status.

        Args:
            policy: A policy, ``default``, ``downscale`` or ``auto``.
            size: Height and width of the pictures, pixels.

        Returns:
            ``label seed policy protocol height width factor status reason``, what
            :func:`visionpe.saliency.measuring.measure` gives, and of ``auto`` what it chose.
        """
        n, extra = self.count(size), Row()
        head = {"label": LABEL, "seed": 0, "policy": policy, "protocol": "object", "height": size[0], "width": size[1]}
        head |= {"factor": factor_of(size, FINE_TUNED), "reason": ""}
        try:
            if policy == AUTO:
                extra = self._choice(size)
                policy = extra["chosen"]
            # A choice that is measured as a policy too is not measured again.
            what = {"policy": policy, "size": size, "pictures": self.digests[:n]}
            measured = self._kept(what, lambda: self._measure(policy, size, n), "ious", "mae")
            return {**head, "status": OK, **measured, **extra}
        except Exception as error:
            status = OUT_OF_MEMORY if is_out_of_memory(error) else FAILED
            return {**head, "status": status, "reason": first_line(error)}
        finally:
            set_policy(self.model, DEFAULT)

    def _kept(self, what: Row, work: Callable[[], Row], *names: str) -> Row:
        key = key_of({**what, "sha256": self.sha256, "versions": VERSIONS})
        row = None if self.options.fresh else self.store.load(key, *names)
        if row is None:
            self.store.save(key, row := work())
        return row

    def _measure(self, policy: str, size: Size, n: int) -> Row:
        set_policy(self.model, DEFAULT if policy == DOWNSCALE else policy)
        return measure(self.model, self.shown[:n], size, device=self.device, downscale=policy == DOWNSCALE)

    def _choice(self, size: Size) -> Row:
        """What ``auto`` says of a size: chosen there, or, where that costs too much, at the nearest size."""
        if size == FINE_TUNED:
            return {"chosen": DEFAULT, "chosen_by": "nothing to choose", "warns": False}
        limit = self.options.auto_up_to
        if limit is not None and factor_of(size, FINE_TUNED) > limit + 1e-6 and self.chosen:
            return {"chosen": self.chosen.nearest(size), "chosen_by": "the nearest size", "warns": False}
        seed = self.options.seed

        def work() -> Row:
            return asdict(choose(self.model, self.choosing, size, device=self.device, seed=seed))

        what = {"auto": self.digests[self.options.images :], "size": size, "seed": seed}
        choice = self._kept(what, work, "policy", "sure", "warns", "scores")
        self.chosen[size] = choice["policy"]
        return {"chosen": choice["policy"], "chosen_by": "its pictures", "warns": choice["warns"]}
