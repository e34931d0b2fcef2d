"""Classifiers on frozen features: a linear one, and the nearest neighbours. They take the place of a model's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Inverse strengths of the penalty that are tried on the images for choices.
STRENGTHS = (0.01, 0.1, 1.0, 10.0)


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """What the classifier of a timm model gets of images ``(B, C, H, W)``: ``(B, dim)``, float32.

    It has memory of its own: a class token is a view, which would keep all tokens of all images alive.
    """
    tokens = model.forward_features(images)  # type: ignore[operator]
    return model.forward_head(tokens, pre_logits=True).to(torch.float32, copy=True)  # type: ignore[operator]


class NearestNeighbours(nn.Module):
    """Votes of the ``k`` training images whose features are the most alike, by cosine, each ``exp(similarity / T)``.

    Source: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", arXiv 1805.01978,
    section 3.4; k = 20 and T = 0.07 as DINO has them (arXiv 2104.14294, appendix F).

    Args:
        features: ``(n, dim)`` of the training images.
        labels: ``(n,)``.
        classes: Their number.
        k: Neighbours, at most ``n`` of them.
        temperature: T, above 0.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int, k: int = 20, temperature: float = 0.07) -> None:
        super().__init__()
        self.k, self.temperature = min(k, len(features)), temperature
        self.register_buffer("bank", nn.functional.normalize(features.float(), dim=1))
        self.register_buffer("votes", nn.functional.one_hot(labels, classes).float())  # (n, classes)

    bank: Tensor
    votes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, dim)`` to ``(B, classes)``: logarithms of the shares of the votes."""
        alike = nn.functional.normalize(x.float(), dim=1) @ self.bank.T  # (B, n)
        nearest, index = alike.topk(self.k, dim=1)
        shares = (nearest / self.temperature).softmax(1)  # (B, k)
        return torch.einsum("bk,bkc->bc", shares, self.votes[index]).clamp(min=1e-6).log()


def linear_probe(
    features: Tensor,
    labels: Tensor,
    choice: tuple[Tensor, Tensor],
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> nn.Linear:
    """A logistic regression on standardised features, by scikit-learn, as a layer that takes them as they are.

    Args:
        features: ``(n, dim)`` of the training images.
        labels: ``(n,)``.
        choice: Features and labels of further images, by whose accuracy (mean over classes) the strength is chosen.
        classes: Their number; one that no training image has is never predicted.
        strengths: scikit-learn's ``C``, those that are tried.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    x, y = features.double().numpy(), labels.numpy()
    mean, scale = x.mean(0), x.std(0) + 1e-6
    best: tuple[float, Any] = (-math.inf, None)
    for strength in strengths:
        fitted = LogisticRegression(C=strength, max_iter=300).fit((x - mean) / scale, y)
        right = balanced_accuracy_score(choice[1].numpy(), fitted.predict((choice[0].double().numpy() - mean) / scale))
        best = max(best, (right, fitted), key=lambda pair: pair[0])
    fitted = best[1]
    weight, bias = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # one line of weights stands for both
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    layer = nn.Linear(x.shape[1], classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-1e4)
        layer.weight[fitted.classes_] = torch.from_numpy(weight / scale).float()
        layer.bias[fitted.classes_] = torch.from_numpy(bias - weight @ (mean / scale)).float()
    return layer


def put_classifier(model: nn.Module, classifier: nn.Module, classes: int) -> nn.Module:
    """Put a classifier of pooled features where a timm model has its own.

    Args:
        model: Changed in place.
        classifier: ``(B, dim)`` to ``(B, classes)``.
        classes: Their number.
    """
    model.reset_classifier(classes)  # type: ignore[operator]
    own = model.get_classifier()  # type: ignore[operator]
    name = next((name for name, module in model.named_modules() if module is own), None)
    if not isinstance(own, nn.Linear) or name is None:
        raise ValueError(f"{type(model).__name__} has no linear classifier on pooled features to take the place of")
    holder, _, last = name.rpartition(".")
    setattr(model.get_submodule(holder), last, classifier)
    return model
