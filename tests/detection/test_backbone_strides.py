"""TimmFeatures: strides are those of the maps, whatever a model tells."""

import pytest
import torch
from tiny_features import build

from visionpe.detection import TimmFeatures


@pytest.mark.parametrize(
    ("name", "stride", "expected"),
    [
        ("resnet50", None, [4, 8, 16, 32]),
        ("resnet50", 8, [4, 8, 8, 8]),
        ("resnet50", 16, [4, 8, 16, 16]),
        ("convnext_atto", 8, [4, 8, 8, 8]),
        ("efficientnet_b0", 16, [4, 8, 16, 16]),
    ],
)
def test_strides_of_convolutional_networks_are_those_of_their_maps(name, stride, expected):
    options = {} if stride is None else {"output_stride": stride}
    backbone = TimmFeatures(name, out_indices=4, strides=expected, **options).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 70, 100))
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-70 // s), -(-100 // s)) for s in expected]
    if name == "resnet50":
        assert backbone.channels == [256, 512, 1024, 2048]  # C2 to C5


def test_maps_larger_than_the_model_tells_are_refused():
    """They would be cropped to their upper left."""
    backbone = build("resnet18", out_indices=(1,))
    backbone.steps = [(16, 16)]
    with pytest.raises(ValueError, match=r"makes a map of \(16, 16\) of images of 64 x 64 pixels"), torch.no_grad():
        backbone(torch.randn(1, 3, 64, 64))
