"""Classifiers on frozen features: what they are, where they stand, and measured like any other model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scaling_runs import PHOTO, program
from sklearn.neighbors import KNeighborsClassifier

from visionpe.scaling.open_images import open_training
from visionpe.scaling.probes import NearestNeighbours, linear_probe, pooled_features, put_classifier

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def clouds(n: int, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, 12, generator=torch.Generator().manual_seed(9))
    return 100 + 30 * (centres[labels] + 0.5 * torch.randn(n, 12, generator=generator)), labels


def test_nearest_neighbours_as_scikit_learn_has_them() -> None:
    (x, y), (other, _) = clouds(80), clouds(40, seed=1)
    ours = NearestNeighbours(x, y, 6, k=5)(other)
    assert ours.shape == (40, 6)
    theirs = KNeighborsClassifier(
        5, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07), algorithm="brute"
    ).fit(x.numpy(), y.numpy())
    expected = theirs.predict_proba(other.numpy())
    assert np.abs(ours.exp().numpy()[:, :4] - expected).max() < 1e-4
    assert NearestNeighbours(x[:3], y[:3], 6)(other).argmax(1).max() < 3  # fewer images than neighbours


@pytest.mark.parametrize("classes", [2, 4])
def test_the_linear_probe_is_the_regression(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    train, choice, (other, _) = clouds(200, classes), clouds(40, classes, 1), clouds(40, classes, 2)
    layer = linear_probe(*train, choice, classes + 1, strengths=(0.1,))
    x = train[0].double().numpy()
    fitted = LogisticRegression(C=0.1, max_iter=300).fit((x - x.mean(0)) / x.std(0), train[1].numpy())
    expected = fitted.predict_proba((other.double().numpy() - x.mean(0)) / x.std(0))
    found = layer(other).softmax(1).detach().numpy()
    assert np.abs(found[:, :classes] - expected).max() < 1e-3
    assert found[:, classes].max() == 0  # no image had it


def test_the_strength_is_chosen_by_the_images_for_it() -> None:
    x, y = clouds(400)
    kept = (y == 0) | (torch.arange(400) < 20)  # a weak penalty tells rare classes, a strong one sees only the common
    weak = linear_probe(x[kept], y[kept], clouds(60, seed=1), 4, strengths=(1e-6,))
    both = linear_probe(x[kept], y[kept], clouds(60, seed=1), 4, strengths=(1e-6, 10.0))
    assert both.weight.abs().sum() > 10 * weak.weight.abs().sum()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18"])
def test_it_takes_the_place_of_the_model_s_own(name: str) -> None:
    model = timm.create_model(name, num_classes=7).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        probe = torch.nn.Linear(features.shape[1], 5)
        put_classifier(model, probe, 5)
        assert torch.allclose(model(images), probe(features), atol=1e-5)
    assert model.num_classes == 5


def test_features_keep_no_tokens() -> None:
    model, images = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1).eval(), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = pooled_features(model, images)
        assert features.equal(model.forward_head(model.forward_features(images), pre_logits=True))
    assert features.untyped_storage().nbytes() == 4 * features.numel()


def test_a_model_without_one_is_refused() -> None:
    with pytest.raises(ValueError, match="no linear classifier"):
        put_classifier(timm.create_model("levit_128s"), torch.nn.Identity(), 3)


def write_images(folder: Path, numbers: dict[str, int]) -> None:
    generator = np.random.default_rng(0)
    for i, (name, number) in enumerate(numbers.items()):
        (folder / name).mkdir(parents=True)
        for k in range(number):
            noise = generator.integers(0, 60, (32, 32, 3)) + np.array([190 * (i == c) for c in range(3)])
            Image.fromarray(noise.astype(np.uint8)).save(folder / name / f"{k}.png")


@pytest.fixture
def run(tmp_path, capsys):
    with program(tmp_path, capsys) as call:
        yield call


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_measured_like_any_model(run, tmp_path: Path, probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionpe.scaling.probed.INTERVAL", -1.0)  # tells of every batch
    write_images(tmp_path / "data" / "train", {"blue": 12, "green": 12, "red": 12})
    write_images(tmp_path / "data" / "val", {"blue": 4, "green": 4, "red": 4})
    photo = PHOTO.replace("num_classes=2 ", "")
    command = f"{photo} --data {tmp_path / 'data'} --probe {probe} --resolutions 1x 2x --protocol object --crop-pct 1"
    command += " --policy default bilinear auto --auto-images 4"
    code, out, err = run(command)
    assert code == 0, err
    assert "features of train 100%" in out
    rows = json.loads((run.out / "results.json").read_text())["rows"]
    assert {row["policy"] for row in rows} == {"default", "downscale", "bilinear", "auto"}
    assert all(row["top1"] > 80 for row in rows if row["native"]), "colours are easy"
    kept = sorted((run.out / "features").iterdir())
    assert len(kept) == (2 if probe == "linear" else 1)
    before = [file.stat().st_mtime_ns for file in kept]
    code, out, _ = run(command)
    assert "of them already finished" in out
    assert [file.stat().st_mtime_ns for file in kept] == before


def test_a_folder_without_training_images(run, tmp_path: Path) -> None:
    write_images(tmp_path / "data", {"blue": 2, "red": 2})
    code, _, err = run(f"{PHOTO} --data {tmp_path / 'data'} --probe knn")
    assert code == 2
    assert "a probe is fitted on" in err


def test_what_is_fitted_on_is_not_what_is_chosen_by(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 20, "b": 20})
    write_images(tmp_path / "val", {"a": 2, "b": 2})
    found = open_training(str(tmp_path))
    parts = [found["train"], found["val"]]
    assert [len(part) for part in parts] == [36, 4]
    files = [{part.path(i) for i in range(len(part))} for part in parts]
    assert not files[0] & files[1]
    assert open_training("elpv")["train"].name == "elpv"


@pytest.mark.parametrize(("text", "said"), [("1.5x", "pixels, 224"), ("big", "--trained-size big")])
def test_bad_trained_sizes(run, text: str, said: str) -> None:
    code, _, err = run(f"{PHOTO} --data elpv --trained-size {text}")
    assert (code, said in err) == (2, True)
