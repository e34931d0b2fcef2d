"""What features tell of the place they stand at, whatever is seen there: positional artefacts, measured over images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Scaled median absolute deviations above the median from which on the norm of a token is an outlier's.
OUTLIER = 5.0


@dataclass
class PositionRecord:
    """Features of one layer at one size, over images: sums, the norms of all patches, and some patches of each image.

    Args:
        patches: Patches of an image that are kept for probes and neighbours, seeded.
        seed: Of their places.
    """

    patches: int = 64
    seed: int = 0
    images: int = 0
    _sum: Tensor | None = None  # (channels, height, width), float64
    _squares: float = 0.0
    _of_images: list[Tensor] = field(default_factory=list)  # mean of an image, (channels,)
    _norms: list[Tensor] = field(default_factory=list)
    _tokens: list[Tensor] = field(default_factory=list)  # (patches, channels)
    _places: list[Tensor] = field(default_factory=list)  # (patches, 2), 0 to 1 from edge to edge

    def add(self, maps: Tensor, raw: Tensor | None = None) -> None:
        """Take features of further images.

        Args:
            maps: ``(B, channels, height, width)``, always of one size.
            raw: The same before the final norm, by which outliers are told; by default ``maps``.

        Raises:
            ValueError: If ``maps`` have another size than those before.
        """
        if self._sum is not None and self._sum.shape != maps.shape[1:]:
            raise ValueError(
                f"maps: {tuple(maps.shape[1:])} after {tuple(self._sum.shape)}; allowed: one size a record"
            )
        each = maps.detach().double().cpu()
        total = each.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._squares += float(each.square().sum())
        self._of_images += each.mean((2, 3)).unbind()
        self._norms.append((maps if raw is None else raw).detach().float().norm(dim=1).flatten().cpu())
        height, width = maps.shape[2:]
        for image in each:
            draws = torch.Generator().manual_seed(self.seed + 7919 * self.images)
            index = torch.randperm(height * width, generator=draws)[: self.patches]
            rows, columns = index // width, index % width
            self._tokens.append(image[:, rows, columns].mT.float())
            self._places.append(torch.stack([(rows + 0.5) / height, (columns + 0.5) / width], 1))
            self.images += 1

    @property
    def mean_map(self) -> Tensor:
        """The mean over images, ``(channels, height, width)``."""
        if self._sum is None:
            raise ValueError("nothing was added; allowed: one image or more")
        return (self._sum / self.images).float()

    def share(self) -> float:
        """The share of the features' variance that goes with the place alone, 0 to 1.

        Of an additive model with an effect of the image and one of the place, summed over channels: the variance
        components of both and of the rest, estimated without bias by their mean squares (two-way analysis of variance
        without replication), so that it does not grow where images are few. Chance puts it below 0 where there is none.
        What photographs share, such as sky above ground, counts as well: compare with that of the pixels.

        Raises:
            ValueError: With fewer than two images or two places.
        """
        if self._sum is None or self.images < 2 or self._sum[0].numel() < 2:
            raise ValueError(f"{self.images} images do not tell what goes with the place; allowed: two or more")
        n, places = self.images, self._sum[0].numel()
        mean = self._sum.flatten(1) / n  # (channels, places)
        overall = mean.mean(1, keepdim=True)
        by_place = n * float((mean - overall).square().sum())
        by_image = places * float((torch.stack(self._of_images) - overall[:, 0]).square().sum())
        total = self._squares - n * places * float(overall.square().sum())
        rest = (total - by_place - by_image) / ((n - 1) * (places - 1))
        of_place = (by_place / (places - 1) - rest) / n
        of_image = (by_image / (n - 1) - rest) / places
        everything = of_place + max(of_image, 0.0) + rest
        return of_place / everything if everything > 0 else 0.0

    def outliers(self, cutoff: float = OUTLIER) -> tuple[float, float]:
        """Patches whose features are far longer than others' (Darcet et al., arXiv 2309.16588, section 2).

        Args:
            cutoff: Scaled median absolute deviations above the median norm.

        Returns:
            Their share of the patches, and of the sum of norms, 0 to 1.
        """
        norms = torch.cat(self._norms).double()
        middle = norms.median()
        spread = 1.4826 * (norms - middle).abs().median()
        far = norms > middle + cutoff * spread.clamp_min(1e-6 * middle)
        return float(far.double().mean()), float(norms[far].sum() / norms.sum().clamp_min(1e-300))

    def same_place(self) -> tuple[float, float]:
        """Whether patches are like those that stand where they stand, more than like those that show the same.

        Returns:
            Of the kept patches, the share whose nearest neighbour (cosine) among the kept patches of other images
            stands nearer than an eighth of the side on both axes; and the same of a patch drawn at random.

        Raises:
            ValueError: With fewer than two images.
        """
        if self.images < 2:
            raise ValueError(f"images={self.images}: neighbours are of other images; allowed: two or more")
        tokens = torch.nn.functional.normalize(torch.cat(self._tokens), dim=1)
        places = torch.cat(self._places)
        owner = torch.repeat_interleave(torch.arange(self.images), torch.tensor([len(each) for each in self._tokens]))
        found, chance = 0.0, 0.0
        for start in range(0, len(tokens), 1024):
            some = slice(start, start + 1024)
            other = owner[some, None] != owner
            alike = (tokens[some] @ tokens.mT).masked_fill(~other, -2)
            near = ((places[some, None] - places).abs() < 0.125).all(-1) & other  # (n, N)
            found += float(near.gather(1, alike.argmax(1, keepdim=True)).sum())
            chance += float((near.sum(1) / other.sum(1)).sum())
        return found / len(tokens), chance / len(tokens)

    def probed(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Kept patches of every second image, from ``part`` (0 or 1): features, and rows and columns, 0 to 1."""
        if self.images < 2:
            raise ValueError(f"images={self.images}: half of them fit a probe; allowed: two or more")
        return torch.cat(self._tokens[part::2]).numpy(), torch.cat(self._places[part::2]).numpy()


@dataclass(frozen=True)
class PlaceProbe:
    """A linear probe that reads row and column from the features of a patch (arXiv 2603.16840)."""

    model: Any

    @classmethod
    def fit(cls, record: PositionRecord) -> PlaceProbe:
        """Ridge regression on the kept patches of every second image; its penalty by leave-one-out.

        Raises:
            ValueError: With fewer than two images.
            ImportError: Without scikit-learn.
        """
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        features, places = record.probed(0)
        return cls(make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 7))).fit(features, places))

    def error(self, record: PositionRecord) -> dict[str, float]:
        """How well it reads the other half of the images, of this record or of one at another size.

        Returns:
            ``row`` and ``column``: mean distance from the true one, as a share of the side (0.25 knows nothing);
            ``row_r2`` and ``column_r2``: shares of the variance that are explained, at most 1.
        """
        features, places = record.probed(1)
        off = self.model.predict(features) - places
        r2 = 1 - (off**2).mean(0) / places.var(0).clip(1e-12)
        row, column = np.abs(off).mean(0)
        return {"row": float(row), "column": float(column), "row_r2": float(r2[0]), "column_r2": float(r2[1])}
