"""Pictures of encodings: the numbers behind them, and the page."""

import numpy as np
import pytest
import torch

import visionpe
from visionpe.cli.listing import main
from visionpe.looking.encodings import nats, panels, without_content


def test_without_positions_attention_is_even():
    for row in panels("none", side=4, times=2):
        assert all(np.abs(panel.nats).max() < 1e-5 for panel in row)


def test_alibi_falls_as_its_formula_says():
    model = without_content("alibi", side=5)
    encoding = model.pos_encoding.parts[0]
    places = visionpe.Grid((7, 7)).positions()
    q = torch.zeros(1, 4, 49, 16)
    bias = encoding.bias(q, q, visionpe.Grid((7, 7)), layer=1).matrix(torch.float32)
    weights = bias.expand(1, 4, 49, 49)[0].softmax(-1).mean(0)[3 * 7 + 3]
    np.testing.assert_allclose(nats(model, 7, (3, 3)).ravel(), (weights * 49).log(), atol=1e-5)
    away = (places - places[24]).norm(dim=1)
    assert np.corrcoef(away, nats(model, 7, (3, 3)).ravel())[0, 1] < -0.9


@pytest.mark.parametrize("name", ["rope_axial", "rope_mixed"])
def test_rotations_depend_on_the_offset(name):
    model = without_content(name, side=5)
    middle = nats(model, 7, (3, 3))
    np.testing.assert_allclose(middle[::-1, ::-1], middle, atol=1e-4)  # the same token is query and key: cosines
    other = nats(model, 7, (2, 3))
    difference = (middle[1:] - other[:-1]).ravel()  # but for the sum over all keys
    np.testing.assert_allclose(difference, difference.mean(), atol=2e-2)


def test_policies_that_differ_are_shown_once():
    rows = panels("ape", side=4, times=2)
    names = [panel.policy for panel in rows[0]]
    assert names[:2] == ["trained size", "default"]
    assert len(names) == len(set(names)) == 6
    assert [panel.policy for panel in rows[1]] == names
    assert [panel.nats.shape for panel in rows[0]] == [(4, 4), *[(8, 8)] * 5]


def test_page(tmp_path, capsys):
    assert main(["pictures", "lepe", "--write", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "![lepe](encodings/lepe.png)" in text
    assert "stays even" in text
    for name in ("lepe.png", "lepe_small.png"):
        assert 90 < (tmp_path / "encodings" / name).stat().st_size < 40_000
    assert main(["pictures", "lepee", "--write", str(tmp_path / "page.md")]) == 2
    assert "lepee" in capsys.readouterr().err
    assert main(["pictures"]) == 2
