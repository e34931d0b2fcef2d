"""Gradients clipped by the norms of the weights, in a run of mmengine's."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from torch import nn

import visionpe.detection  # noqa: F401


class Run:
    """What the hook reads of a runner."""

    def __init__(self, optim_wrapper):
        self.optim_wrapper = optim_wrapper


def stepped(gradient, *, factor=None):
    """The weights of two outputs, of norm 5 and almost 0, after a step of SGD with rate 1, and a bias of norm 2."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1e-9]]))
        layer.bias.copy_(torch.tensor([2.0, 0.0]))
    wrapper = OptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0))
    if factor is not None:
        HOOKS.build({"type": "AdaptiveClipHook", "factor": factor}).before_train(Run(wrapper))
    before = [p.detach().clone() for p in layer.parameters()]
    (layer.weight * gradient).sum().add(layer.bias.sum() * 10).backward()
    wrapper.step()
    return [old - p.detach() for old, p in zip(before, layer.parameters())]


def test_each_output_moves_by_a_share_of_its_norm():
    gradient = torch.tensor([[30.0, 40.0], [0.6, 0.8]])
    weight, bias = stepped(gradient, factor=0.1)
    # Of the weights 0.1 x 5, and 0.1 x 1e-3 where they are less; of the bias as a whole 0.1 x 2.
    torch.testing.assert_close(weight.norm(dim=1), torch.tensor([0.5, 1e-4]), rtol=1e-3, atol=0)
    torch.testing.assert_close(bias.norm(), torch.tensor(0.2))
    torch.testing.assert_close(weight[0] / weight[0].norm(), gradient[0] / 50)
    assert stepped(gradient)[0].allclose(gradient)


def test_small_gradients_stay_as_they_are():
    gradient = torch.tensor([[0.1, 0.2], [0.0, 1e-5]])
    assert stepped(gradient, factor=0.1)[0].allclose(stepped(gradient)[0])


@pytest.mark.parametrize("factor", [0, -1, float("nan"), True, "0.01"])
def test_a_bad_factor_is_named(factor):
    with pytest.raises((TypeError, ValueError), match=r"factor=.*allowed"):
        HOOKS.build({"type": "AdaptiveClipHook", "factor": factor})
