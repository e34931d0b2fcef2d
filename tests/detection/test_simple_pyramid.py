"""ViTDet's simple feature pyramid against its definition, written out for one image."""

import pickle

import pytest
import torch
from mmengine.registry import MODELS
from torch.nn import functional

from visionpe.detection import SimpleFeaturePyramid, TimmFeatures


def drawn(**kwargs):
    neck = SimpleFeaturePyramid(16, 8, **kwargs)
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return neck.eval()


def norm(x, weight, bias):
    """Over the channels of each cell, epsilon 1e-6."""
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return scaled * weight[:, None, None] + bias[:, None, None]


def doubled(x, weight, bias):
    """Twice the resolution: each cell becomes 2 x 2, by four matrices ``weight`` (in, out, 2, 2)."""
    batch, _, height, width = x.shape
    out = torch.einsum("bchw,cdij->bdhiwj", x, weight)
    return out.reshape(batch, -1, 2 * height, 2 * width) + bias[:, None, None]


def finished(x, state, index):
    x = torch.einsum("bchw,dc->bdhw", x, state[f"{index}.weight"][:, :, 0, 0])
    x = norm(x, state[f"{index + 1}.weight"], state[f"{index + 1}.bias"])
    x = functional.conv2d(x, state[f"{index + 2}.weight"], padding=1)
    return norm(x, state[f"{index + 3}.weight"], state[f"{index + 3}.bias"])


def test_levels_are_the_papers():
    neck, x = drawn(num_outs=5), torch.randn(2, 16, 7, 10)
    states = [level.state_dict() for level in neck.levels]
    four, two, one, half = states
    quadruple = doubled(x, four["0.weight"], four["0.bias"])
    quadruple = functional.gelu(norm(quadruple, four["1.weight"], four["1.bias"]))
    quadruple = doubled(quadruple, four["3.weight"], four["3.bias"])
    expected = [
        finished(quadruple, four, 4),
        finished(doubled(x, two["0.weight"], two["0.bias"]), two, 1),
        finished(x, one, 0),
        finished(x[..., :6, :].unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1)), half, 1),
    ]
    expected.append(expected[-1][..., ::2, ::2])
    with torch.no_grad():
        levels = neck([torch.zeros(1), x])  # the last map alone counts
    assert [tuple(level.shape[2:]) for level in levels] == [(28, 40), (14, 20), (7, 10), (3, 5), (2, 3)]
    for level, its in zip(levels, expected, strict=True):
        assert torch.allclose(level, its, atol=1e-5)


@pytest.mark.parametrize("scale", [8, 4, 2, 1, 0.5, 0.25])
def test_any_power_of_two(scale):
    (level,) = drawn(scales=(scale,))([torch.randn(1, 16, 8, 4)])
    assert level.shape == (1, 8, int(8 * scale), int(4 * scale))


def test_widths_are_the_papers():
    neck = MODELS.build({"type": "SimpleFeaturePyramid", "in_channels": [3, 768]})
    assert [level[0].weight.shape[:2] for level in neck.levels[:2]] == [(768, 384), (768, 384)]
    assert neck.levels[0][3].weight.shape[:2] == (384, 192)
    assert [level[-4].weight.shape for level in neck.levels] == [(256, c, 1, 1) for c in (192, 384, 768, 768)]
    # Biases only where no norm follows, and one norm after each convolution.
    assert all(level[i].bias is None for level in neck.levels for i in (-2, -4))
    assert len(neck(torch.randn(1, 1, 768, 2, 2))) == 4


@pytest.mark.parametrize("scales", [(3,), (0,), (-2,), (0.3, 1), (32,), ()])
def test_refuses_other_scales(scales):
    with pytest.raises(ValueError, match="scales"):
        SimpleFeaturePyramid(16, scales=scales)


def test_refuses_too_few_levels():
    with pytest.raises(ValueError, match="num_outs=3 must be at least"):
        SimpleFeaturePyramid(16, num_outs=3)


def test_four_levels_of_a_plain_vit():
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 64, "out_indices": (1,)}
    backbone = TimmFeatures("rope_vit_s", **options)
    levels = drawn()(backbone(torch.randn(1, 3, 96, 64)))
    assert [tuple(level.shape) for level in levels] == [(1, 8, 96 // s, 64 // s) for s in (4, 8, 16, 32)]


def published(neck, prefix):
    """The levels as detectron2 names them: by their stride, with norms inside the two convolutions that end each."""
    state = {}
    for stride, level in zip((2, 3, 4, 5), neck.levels, strict=True):
        first = len(level) - 4
        names = {
            first: f"{first}",
            first + 1: f"{first}.norm",
            first + 2: f"{first + 1}",
            first + 3: f"{first + 1}.norm",
        }
        for key, value in level.state_dict().items():
            module, kind = key.split(".")
            state[f"{prefix}simfp_{stride}.{names.get(int(module), module)}.{kind}"] = value
    return state


@pytest.mark.parametrize("way", ["init_cfg", "load_weights", "load_state_dict"])
@pytest.mark.parametrize("scales", [(4, 2, 1, 0.5), (0.5, 1, 2, 4)])
def test_levels_of_detectron2(way, scales, tmp_path):
    source, x = drawn(), torch.randn(1, 16, 6, 4)
    state = published(source, "backbone.")
    names = ("2.3.bias", "2.5.norm.weight", "5.1.weight", "4.0.norm.bias")
    assert {f"backbone.simfp_{name}" for name in names} <= state.keys()
    arrays = {key: value.numpy() for key, value in state.items()} | {"backbone.net.pos_embed": torch.ones(1).numpy()}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}))
    if way == "init_cfg":
        config = {"type": "Pretrained", "checkpoint": str(path)}
        neck = MODELS.build(
            {"type": "SimpleFeaturePyramid", "in_channels": 16, "out_channels": 8, "scales": scales, "init_cfg": config}
        )
        neck.init_weights()
    else:
        neck = SimpleFeaturePyramid(16, 8, scales=scales)
        if way == "load_weights":
            neck.load_weights(str(path), prefix="backbone.")
        else:
            neck.load_state_dict({"model": state})
    order = [(4, 2, 1, 0.5).index(scale) for scale in scales]
    with torch.no_grad():
        expected = source([x])
        for level, i in zip(neck.eval()([x]), order, strict=True):
            assert torch.equal(level, expected[i])
    again = SimpleFeaturePyramid(16, 8, scales=scales)
    again.load_state_dict(neck.state_dict())  # ours as ever


def test_levels_that_do_not_fit_are_refused(tmp_path):
    state = published(drawn(), "")
    with pytest.raises(
        ValueError, match=r"scales=\(4, 1\) makes 2 levels, the file has simfp_2, simfp_3, simfp_4, sim"
    ):
        SimpleFeaturePyramid(16, 8, scales=(4, 1)).load_state_dict(state)
    torch.save({"model": {k: v for k, v in state.items() if k != "simfp_3.1.weight"}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth'.* levels\.1\.1\.weight is missing"):
        drawn().load_weights(str(tmp_path / "x.pth"))
    torch.save({"model": {"backbone.net.pos_embed": torch.ones(1)}}, tmp_path / "y.pth")
    with pytest.raises(ValueError, match=r"y\.pth'.* levels\.\d\.\d\.\w+ is missing"):
        drawn().load_weights(str(tmp_path / "y.pth"))
