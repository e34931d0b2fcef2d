"""Objects are found before white and nowhere else, and what is pasted is what the mask says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from saliency_pictures import disc, write_backgrounds, write_objects

from visionpe.saliency.cutouts import LONG_SIDE, SIDE, make_cutouts, object_mask


def test_a_disc_before_white_is_found() -> None:
    picture, where = disc(80, 100, radius=25)
    mask = object_mask(picture)
    assert mask is not None
    assert (mask ^ where).sum() <= 8  # the tips, which opening rounds


def test_white_inside_an_object_belongs_to_it() -> None:
    picture, where = disc(80, 100, radius=25)
    picture[36:44, 46:54] = 255
    mask = object_mask(picture)
    assert mask is not None
    assert mask[40, 50]
    assert (mask ^ where).sum() <= 8


@pytest.mark.parametrize("kind", ["a grey edge", "too small", "two objects", "a rectangle", "nothing"])
def test_what_is_no_single_object_before_white(kind: str) -> None:
    picture, _ = disc(80, 100, radius={"too small": 6, "two objects": 36}.get(kind, 25))
    if kind == "a grey edge":
        picture[0] = 128
    elif kind == "two objects":
        picture[:, 46:54] = 255
    elif kind == "a rectangle":
        picture[:] = 255
        picture[20:60, 20:80] = 90
    elif kind == "nothing":
        picture[:] = 255
    assert object_mask(picture) is None


def test_pictures_hold_the_object_where_the_mask_says(tmp_path: Path) -> None:
    made = make_cutouts(write_objects(tmp_path / "objects"), write_backgrounds(tmp_path / "scenes"), 6, seed=3)
    assert len({each.name for each in made}) == 6
    for each in made:
        assert each.image.shape == (3, SIDE, SIDE)
        assert 0 <= each.image.min() <= each.image.max() <= 1
        ys, xs = torch.nonzero(each.mask, as_tuple=True)
        longest = max(ys.max() - ys.min(), xs.max() - xs.min()) + 1
        assert SIDE * LONG_SIDE[0] - 2 <= longest <= SIDE * LONG_SIDE[1] + 2
        # Objects are red, backgrounds green.
        assert each.image[0][each.mask].median() > 0.7 > 0.3 > each.image[0][~each.mask].median()


def test_a_larger_choice_begins_with_a_smaller_one(tmp_path: Path) -> None:
    folders = write_objects(tmp_path / "objects"), write_backgrounds(tmp_path / "scenes")
    few, more = make_cutouts(*folders, 2, seed=1), make_cutouts(*folders, 5, seed=1)
    for a, b in zip(few, more):
        assert a.name == b.name
        assert torch.equal(a.image, b.image)
    assert [x.name for x in make_cutouts(*folders, 5, seed=2)] != [x.name for x in more]


def test_folders_take_turns(tmp_path: Path) -> None:
    objects = write_objects(tmp_path / "objects", folders=3, each=4)
    made = make_cutouts(objects, write_backgrounds(tmp_path / "scenes", 12), 6)
    folders = [each.name.split("/")[0] for each in made]
    assert sorted(folders[:3]) == sorted(folders[3:]) == ["0", "1", "2"]


def test_a_file_that_is_no_picture_is_left_out(tmp_path: Path) -> None:
    objects = write_objects(tmp_path / "objects")
    (objects / "0" / "broken.png").write_bytes(b"no picture")
    assert len(make_cutouts(objects, write_backgrounds(tmp_path / "scenes"), 8)) == 8


def test_too_few(tmp_path: Path) -> None:
    objects, scenes = write_objects(tmp_path / "objects"), write_backgrounds(tmp_path / "scenes")
    with pytest.raises(ValueError, match=r"--objects .*: 8 objects before white; 9 are needed"):
        make_cutouts(objects, scenes, 9)
    with pytest.raises(ValueError, match=r"--backgrounds .*: 2 pictures; 8 are needed"):
        make_cutouts(objects, write_backgrounds(tmp_path / "two", 2), 8)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        make_cutouts(tmp_path / "none", scenes, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        make_cutouts(tmp_path / "empty", scenes, 1)


def test_grey_photographs_become_coloured(tmp_path: Path) -> None:
    picture, _ = disc(80, 100, radius=25)
    (tmp_path / "objects").mkdir()
    Image.fromarray(picture).convert("L").save(tmp_path / "objects" / "grey.png")
    (made,) = make_cutouts(tmp_path / "objects", write_backgrounds(tmp_path / "scenes"), 1)
    assert np.isclose(made.image[:, made.mask].std(0).median(), 0, atol=0.01)
