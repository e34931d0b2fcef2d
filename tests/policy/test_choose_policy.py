"""A policy chosen without labels, kept in a table by size, and followed by a model."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import pytest
import timm
import torch
from conftest import randomize, tiny_vit

import visionpe
from visionpe.policy.choose import moved
from visionpe.policy.holder import policy_holders
from visionpe.policy.sizes import as_size, trained_size

TABLE = {"24x24": "default", "48x48": "yarn+temperature", (32, 64): "interpolate"}


def in_force(model: torch.nn.Module) -> list[str | None]:
    return [part.policy for part in policy_holders(model.modules())]


def test_the_choice_is_the_best_score_and_the_model_stays_as_it_was() -> None:
    model = tiny_vit("rope_mixed")
    visionpe.set_policy(model, "ntk")
    model.train()
    before = in_force(model)
    choice = visionpe.choose_policy(model, torch.randn(12, 3, 48, 48), 48)
    assert in_force(model) == before
    assert model.training
    assert {"default", "interpolate", "yarn", "ntk"} <= set(choice.scores)
    assert choice.policy in (max(choice.scores, key=choice.scores.get), "downscale")
    assert "downscale" in choice.scores
    assert visionpe.choose_policy(model, torch.randn(4, 3, 48, 48), 24).scores == {}  # the trained size: no choice
    assert "temperature" in visionpe.choose_policy(tiny_vit("none"), torch.randn(4, 3, 48, 48), 40).scores


def test_images_may_be_resized_instead() -> None:
    torch.manual_seed(1)
    model = tiny_vit("ape")
    with torch.no_grad():
        model.pos_encoding.parts[0].table.mul_(8)  # what it says at another size is noise
    torch.manual_seed(2)
    images = torch.nn.functional.interpolate(torch.randn(32, 3, 24, 24), (120, 120), mode="bicubic")
    scores = visionpe.choose_policy(model, images, 120).scores
    before = visionpe.set_policy(copy.deepcopy(model), "downscale")(images)
    choice = visionpe.PolicyTable({120: "downscale"})
    torch.testing.assert_close(visionpe.set_policy(model, choice)(images), before)
    assert "downscale" in scores
    other = tiny_vit("ape")
    other.patch_embed.modifiers = ()  # a patch embedding that cannot
    found = visionpe.choose_policy(other, torch.randn(3, 3, 48, 48), 48)
    assert found.policy != "downscale"
    assert "downscale" in found.scores


def test_images_are_moved_by_half_a_patch() -> None:
    images = torch.arange(24.0).reshape(1, 1, 4, 6)
    other = moved(images, (1, 2))
    assert other.shape == images.shape
    assert torch.equal(other[..., 1:, 2:], images[..., :-1, :-2])
    assert torch.equal(other[..., 0, 2:], images[..., 0, :-2])


def test_images_may_come_in_batches_of_any_size() -> None:
    model, images = tiny_vit("ape"), torch.randn(6, 3, 48, 60)
    whole = visionpe.choose_policy(model, images, (36, 48))
    pairs = [(images[:4], torch.zeros(4)), (images[4:], torch.zeros(2))]
    for given in (pairs, [images[:4], images[4:]], torch.utils.data.DataLoader(images, batch_size=4)):
        again = visionpe.choose_policy(model, given, "36x48")
        assert again.policy == whole.policy
        assert again.scores == pytest.approx(whole.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("images", "size", "message"),
    [
        (torch.zeros(0, 3, 8, 8), 48, "images: none given"),
        ([], 48, "images: none given"),
        (torch.zeros(3, 8, 8), 48, r"images: torch.float32 of shape \(3, 8, 8\); allowed: floating point"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 48, "images: torch.uint8"),
        (torch.zeros(2, 3, 8, 8), 0, "size=0 is no image size; allowed: 224"),
        (torch.zeros(2, 3, 8, 8), "48by48", "size='48by48' is no image size"),
    ],
)
def test_bad_images_and_sizes(images: object, size: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        visionpe.choose_policy(tiny_vit("rope_mixed"), images, size)


def test_a_model_without_policies_is_told_how_to_get_them() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    with pytest.raises(ValueError, match=r"VisionTransformer holds no encoding .* visionpe.adapt\(model\)"):
        visionpe.choose_policy(model, torch.randn(4, 3, 48, 48), 48)
    with pytest.raises(ValueError, match=r"applies to no encoding of VisionTransformer; .* visionpe.adapt\(model\)"):
        visionpe.set_policy(model, "temperature")


def test_sizes() -> None:
    assert as_size(224) == as_size("224") == as_size((224, 224)) == as_size([224]) == (224, 224)
    assert as_size("384x512") == as_size((384, 512)) == (384, 512)
    for bad in (-1, 2.5, "x", (1, 2, 3), None, (8, 0.5), "8x8x8"):
        with pytest.raises(ValueError, match="is no image size"):
            as_size(bad)
    assert trained_size(timm.create_model("rope_vit_ti", img_size=(64, 96))) == (64, 96)
    assert trained_size(timm.create_model("resnet10t")) == (176, 176)
    with pytest.raises(ValueError, match="give it as trained=224"):
        trained_size(torch.nn.Linear(2, 2))


def test_a_table_is_a_small_file(tmp_path: Path) -> None:
    model = tiny_vit("rope_mixed")
    table = visionpe.PolicyTable(TABLE)
    table[36] = visionpe.choose_policy(model, torch.randn(4, 3, 36, 36), 36)
    table.save(tmp_path / "policies.json")
    content = json.loads((tmp_path / "policies.json").read_text())
    assert content == {"24x24": "default", "32x64": "interpolate", "36x36": table[36], "48x48": "yarn+temperature"}
    assert visionpe.PolicyTable.load(tmp_path / "policies.json") == table
    assert table.nearest((48, 48)) == "yarn+temperature"
    assert table.nearest(1024) == "yarn+temperature"
    assert table.nearest((64, 32)) == "interpolate"  # the same area
    assert table.nearest(8) == "default"


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "no table"), ("{", "is no policy table"), ('{"big": "yarn"}', "'big' is no image size")]
    + [('{"48": "yarn("}', "cannot be read"), ('{"48": 3}', "allowed: a name such as")],
)
def test_bad_tables(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        visionpe.set_policy(tiny_vit("rope_mixed"), tmp_path / "bad.json")


def test_every_image_gets_the_policy_of_its_size(tmp_path: Path) -> None:
    model = tiny_vit("rope_mixed+ape")
    plain = copy.deepcopy(model)
    visionpe.PolicyTable(TABLE).save(tmp_path / "policies.json")
    assert visionpe.set_policy(model, str(tmp_path / "policies.json")) is model
    for size, policy in (((48, 48), "yarn+temperature"), ((24, 24), "default"), ((32, 64), "interpolate")):
        x = torch.randn(2, 3, *size)
        wanted = visionpe.set_policy(visionpe.set_policy(plain, "default"), policy)(x)
        torch.testing.assert_close(model(x), wanted)
        torch.testing.assert_close(model.forward_features(x), plain.forward_features(x))
    copied = copy.deepcopy(model)
    copied(torch.randn(1, 3, 48, 48))
    assert in_force(copied) != in_force(model)  # a copy follows by itself
    assert visionpe.set_policy(model, "ntk") is model  # and no table any more
    model(torch.randn(1, 3, 48, 48))
    assert "ntk" in in_force(model)


def test_a_table_set_for_one_size() -> None:
    model = visionpe.set_policy(tiny_vit("rope_mixed"), TABLE, size=(32, 64))
    model(torch.randn(1, 3, 48, 48))
    assert "interpolate" in in_force(model)


@pytest.mark.parametrize("name", ["swin_t", "cswin_t", "vitdet_b"])
def test_a_table_in_every_backbone(name: str) -> None:
    options = {"vitdet_b": {"depth": 2, "embed_dim": 16, "num_heads": 2, "window_size": 3, "patch_size": 4}}
    small = options.get(name) or {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
    model = randomize(timm.create_model(name, img_size=32, num_classes=3, pos_encoding="rope_mixed", **small))
    features = timm.create_model(
        name, img_size=32, pos_encoding="rope_mixed", features_only=True, out_indices=(0, 1), **small
    )
    visionpe.set_policy(model, {32: "default", 64: "interpolate"})
    visionpe.set_policy(features, {32: "default", 64: "interpolate"})
    for each in (model, features):
        each(torch.randn(1, 3, 64, 64))
        assert "interpolate" in in_force(each)
        each(torch.randn(1, 3, 32, 32))
        assert "interpolate" not in in_force(each)


def test_what_a_table_cannot_follow() -> None:
    with pytest.raises(ValueError, match="applies to no encoding of VisionTransformer"):
        visionpe.set_policy(model := tiny_vit("rope_mixed"), {24: "default", 48: "bicubic"})
    model(torch.randn(1, 3, 48, 48))
    assert in_force(model) == in_force(tiny_vit("rope_mixed"))  # nothing of it stays
    with pytest.raises(ValueError, match="the policy table is empty"):
        visionpe.set_policy(tiny_vit("rope_mixed"), {})
    with pytest.raises(ValueError, match="Linear has no patch_embed"):
        visionpe.set_policy(torch.nn.Linear(2, 2), {24: "default"})
    with pytest.raises(ValueError, match=r"policy=\['yarn'\] is no policy"):
        visionpe.set_policy(tiny_vit("rope_mixed"), ["yarn"])
    for kind in (FileNotFoundError, ValueError):
        with pytest.raises(kind, match=r"policy='nowhere\.json': there is no such file"):
            visionpe.set_policy(tiny_vit("rope_mixed"), "nowhere.json")


def test_a_model_with_a_table_is_saved_compiled_and_loaded() -> None:
    model = visionpe.set_policy(tiny_vit("rope_mixed"), TABLE)
    assert model.state_dict().keys() == tiny_vit("rope_mixed").state_dict().keys()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    compiled = torch.compile(model, backend="eager", dynamic=False)
    for size in (48, 24):
        x = torch.randn(1, 3, size, size)
        torch.testing.assert_close(loaded(x), model(x))
        torch.testing.assert_close(compiled(x), model(x))
