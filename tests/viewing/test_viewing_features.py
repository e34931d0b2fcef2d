"""Features as maps and colours, against scikit-learn and what was planted."""

import numpy as np
import pytest
import timm
import torch
from conftest import tiny_vit
from sklearn.decomposition import PCA

from visionpe.viewing.features import ColourBasis, feature_maps, normed, similarity

IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def test_maps_of_a_vit():
    model = tiny_vit("rope_mixed").train()
    raw = feature_maps(model, IMAGES, norm=False)
    assert [tuple(each.shape) for each in raw] == [(2, 32, 6, 8)] * 2
    assert model.training
    model.eval()
    final = model.forward_features(IMAGES)[:, 1:].mT.unflatten(2, (6, 8))
    torch.testing.assert_close(feature_maps(model, IMAGES, 1)[0], final)
    assert feature_maps(model, IMAGES, [-2])[0].equal(normed(model, raw[0]))
    assert not feature_maps(model, IMAGES)[0].equal(raw[0])


def test_maps_of_pyramids_and_of_features_only():
    kwargs = dict(img_size=32, patch_size=2, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2))
    model = timm.create_model("swin_t", **kwargs).eval()
    assert [each.shape[1] for each in feature_maps(model, torch.rand(1, 3, 32, 32))] == [8, 16]
    backbone = timm.create_model("resnet18", features_only=True).eval()
    images = torch.rand(1, 3, 64, 64)
    maps = feature_maps(backbone, images)
    assert len(maps) == 5
    assert feature_maps(backbone, images, 2)[0].equal(maps[3])
    assert feature_maps(backbone, images, [0, -1])[1].equal(maps[4])
    with pytest.raises(ValueError, match="layers"):
        feature_maps(backbone, images, [5])


def test_a_model_without_maps_is_refused():
    with pytest.raises(ValueError, match="maps"):
        feature_maps(torch.nn.Sequential(torch.nn.Flatten()), IMAGES)


def test_colours_are_the_principal_components():
    maps = torch.randn(3, 10, 5, 7, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 11)[:, None, None]
    basis = ColourBasis.fit(maps, clip=0)
    tokens = maps.movedim(1, -1).flatten(0, 2).numpy()
    pca = PCA(3).fit(tokens)
    np.testing.assert_allclose(np.abs(pca.components_), basis.directions.abs().numpy(), atol=1e-4)
    assert (basis.directions.gather(1, basis.directions.abs().argmax(1, keepdim=True)) > 0).all()
    np.testing.assert_allclose(basis.explained, pca.explained_variance_ratio_, rtol=1e-4)
    colours = basis.colours(maps)
    assert colours.shape == (3, 5, 7, 3)
    assert colours.dtype == np.uint8
    assert colours.reshape(-1, 3).min(0).tolist() == [0, 0, 0]
    assert colours.reshape(-1, 3).max(0).tolist() == [255] * 3


def test_one_basis_for_maps_of_all_sizes():
    maps = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(2))
    basis = ColourBasis.fit([maps, maps[:, :, :3]])
    doubled = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (basis.colours(doubled)[0, ::2, ::2] == basis.colours(maps)[0]).all()


@pytest.mark.parametrize(
    ("maps", "clip"), [(torch.rand(1, 2, 4, 4), 0), (torch.rand(1, 8, 1, 3), 0), (torch.rand(1, 8, 4, 4), 0.5)]
)
def test_what_has_no_colours_is_refused(maps, clip):
    with pytest.raises(ValueError, match=r"maps|clip"):
        ColourBasis.fit(maps, clip=clip)


def test_similarity():
    maps = torch.randn(2, 8, 4, 5, generator=torch.Generator().manual_seed(3))
    alike = similarity(maps, (3, 4))
    assert alike.shape == (2, 4, 5)
    torch.testing.assert_close(alike[:, 3, 4], torch.ones(2))
    a, b = maps[1, :, 3, 4].double(), maps[1, :, 1, 2].double()
    assert float(alike[1, 1, 2]) == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)
    torch.testing.assert_close(similarity(maps, (3, 4), other=2 * maps[..., :2]), alike[..., :2])
    for patch in ((4, 0), (0, 5), (-1, 0)):
        with pytest.raises(ValueError, match="patch"):
            similarity(maps, patch)
