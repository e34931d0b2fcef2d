"""Which label a folder of images has: by its name as timm has it, by a file, and never another than in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from odd_pictures import write_bad
from PIL import Image
from scaling_runs import SMALL, assert_one_line, fake_images, program, write_run

from visionpe.scaling.class_map import class_order, read_class_map
from visionpe.scaling.open_images import open_source
from visionpe.utils.errors import InputError


@pytest.fixture
def run(tmp_path, capsys):
    with program(tmp_path, capsys) as call:
        yield call


def folders(root: Path, names) -> Path:
    for name in map(str, names):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name / "x.png")
    return root


def labels(source) -> dict[str, int]:
    return {Path(path).parent.name: label for path, label in source.images.samples}


def test_names_that_differ_in_case_alone_and_odd_digits_have_an_order(tmp_path):
    folders(tmp_path, ["b", "B", "a²", "a2", ".cache"])
    assert class_order(tmp_path)[0] == ["a2", "a²", "B", "b"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.txt", "3\n1\n0\n2\n"),
        ("map.txt", "3\r\n1\r\n0\r\n2\r\n\r\n"),
        ("map.json", '["3", "1", "0", "2"]'),
        ("map.json", '{"0": 2, "1": 1, "2": 3, "3": 0}'),
    ],
)
def test_a_class_map_gives_the_labels(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    data = folders(tmp_path / "data", range(4))
    assert labels(open_source(str(data))) == {"0": 0, "1": 1, "2": 2, "3": 3}
    source = open_source(str(data), class_map=str(tmp_path / name))
    assert labels(source) == {"0": 2, "1": 1, "2": 3, "3": 0}
    assert source.classes == 4
    assert source.fingerprint != open_source(str(data)).fingerprint
    if name == "map.txt" and "\r" not in text:
        from timm.data import create_dataset

        theirs = create_dataset("", root=str(data), class_map=str(tmp_path / name)).reader
        assert labels(source) == {Path(path).parent.name: label for path, label in theirs.samples}


def test_a_class_map_may_name_more_folders_than_there_are(tmp_path):
    (tmp_path / "map.txt").write_text("a\nb\nc\nd\n")
    source = open_source(str(folders(tmp_path / "data", "bd")), class_map=str(tmp_path / "map.txt"))
    assert labels(source) == {"b": 1, "d": 3}
    assert source.classes == 4


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.txt", None, "no such file"),
        ("map.pkl", "x", "allowed: .txt, .json"),
        ("map.txt", "", "holds no names"),
        ("map.txt", "a\n\nb\n", "line 2: '' is no name"),
        ("map.txt", "a\nb\na\n", "names 'a' twice"),
        ("map.txt", "b\n", "does not name the folder"),
        ("map.json", "{", "cannot be read"),
        ("map.json", "5", "holds no names"),
        ("map.json", '{"a": "0"}', "'a' has the label '0'; allowed: whole numbers from 0"),
        ("map.json", '{"a": -1}', "label -1"),
        ("map.json", "[1, 2]", "1 is no name of a folder"),
    ],
)
def test_bad_class_maps(name, text, words, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    data = folders(tmp_path / "data", "ab")
    with pytest.raises(InputError) as refused:
        open_source(str(data), class_map=str(tmp_path / name))
    assert str(refused.value).startswith(f"--class-map {tmp_path / name}")
    assert words in str(refused.value)


def test_a_class_map_needs_folders(tmp_path):
    (tmp_path / "map.txt").write_text("a\n")
    with pytest.raises(InputError, match=r"--class-map .* not with --data digits"):
        open_source("digits", class_map=str(tmp_path / "map.txt"))
    assert read_class_map(tmp_path / "map.txt") == {"a": 0}


def test_runs_keep_the_labels_that_they_were_trained_with(run, tmp_path):
    names = sorted(map(str, range(10, 0, -1)))  # as mmpretrain has them: 1, 10, 2, 3 ...
    data = fake_images(tmp_path / "data", classes=10, images=1)
    for label, name in enumerate(names):
        (data / f"class{label}").rename(data / name)
    runs = write_run(tmp_path / "runs" / "a", data="CustomDataset", classes=names)
    command = f"--runs {runs} --data {data} {SMALL} --resolutions 1x --protocol object --controls none"
    code, _, err = run(command)
    assert code == 2
    assert_one_line(err, "the folder '2' has label 1", "trained with label 2", "--class-map")
    (tmp_path / "map.json").write_text(json.dumps(names))
    code, _, err = run(f"{command} --class-map {tmp_path / 'map.json'}")
    assert code == 0, err


def test_a_picture_that_cannot_be_read_is_one_line(run, tmp_path):
    data = fake_images(tmp_path / "data", classes=10, images=1)
    runs = write_run(tmp_path / "runs" / "a")
    command = f"--runs {runs} --data {data} {SMALL} --resolutions 1x --protocol object --controls none"
    (tmp_path / "bad").mkdir()
    for bad, word in write_bad(tmp_path / "bad").values():
        path = bad.rename(data / "class3" / bad.name)
        code, _, err = run(command)
        path.unlink()
        assert code == 2
        assert_one_line(err, f"cannot read {path} (", word, "--skip-corrupt")
