"""Labels can be read whatever the box and the picture, and colours of a segmentation are named."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from visionpe.detection.predicting.drawing import Painter, class_colours
from visionpe.detection.predicting.lettering import draw_labels, font, letter_size, place, with_legend

RED, BLUE = (220, 0, 0), (0, 0, 220)


@pytest.mark.parametrize("shape", [(48, 64), (400, 600), (1400, 2000)])
def test_labels_of_tiny_boxes_are_whole_and_clear_of_the_box(shape):
    picture = np.full((*shape, 3), 90, np.uint8)
    size = letter_size(picture)
    assert 13 <= size <= 48
    box = (shape[1] // 2, shape[0] // 2, shape[1] // 2 + 4, shape[0] // 2 + 4)
    drawn = draw_labels(picture, [box], ["a cat"], [RED])
    changed = (drawn != 90).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert rows[-1] - rows[0] + 1 >= size  # as high as its letters
    assert columns[-1] - columns[0] + 1 >= font(size).getlength("a cat")
    assert not changed[box[1] : box[3], box[0] : box[2]].any()
    assert (drawn == (255, 255, 255)).all(-1).any()  # white letters on red


def test_labels_do_not_cover_each_other_while_there_is_room():
    rng = np.random.default_rng(0)
    spots = []
    for _ in range(30):
        left, top = rng.integers(0, 980), rng.integers(0, 680)
        spots.append(place((left, top, left + 12, top + 12), (90, 20), (700, 1000), spots))
    for i, a in enumerate(spots):
        assert 0 <= a[0] <= a[2] <= 1000
        assert 0 <= a[1] <= a[3] <= 700
        for b in spots[:i]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_large_boxes_hold_their_labels_and_long_names_are_cut():
    assert place((100, 100, 300, 200), (90, 20), (700, 1000), ()) == (100, 100, 190, 120)
    drawn = draw_labels(np.zeros((40, 60, 3), np.uint8), [(0, 0, 60, 40)], ["a name without an end"], [BLUE])
    assert drawn.shape == (40, 60, 3)


def segmentation(labels):
    return SegDataSample(pred_sem_seg=PixelData(data=torch.as_tensor(labels)[None]))


def test_a_legend_names_the_colours_that_are_there():
    labels = np.zeros((600, 800), int)
    labels[:, 600:] = 2
    labels[:10, :10] = 255  # no class
    palette = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    painter = Painter("mmseg", {"classes": ("sky", "sea", "sand"), "palette": palette})
    image = np.zeros((600, 800, 3), np.uint8)
    drawn = painter(image, segmentation(labels), legend=True)[..., ::-1]
    assert drawn.shape[1:] == (800, 3)
    assert drawn.shape[0] > 600
    assert not drawn[:10, :10].any()
    strip = drawn[600:]
    for colour, there in zip(palette, (True, False, True)):
        assert (strip == colour).all(-1).any() == there
    assert painter(image, segmentation(labels)).shape == image.shape
    many = Painter("mmseg", {"classes": [f"class number {i}" for i in range(150)]})
    cells = np.arange(150).repeat(16).reshape(40, 60)
    higher = many(np.zeros((40, 60, 3), np.uint8), segmentation(cells), legend=True)
    assert 512 < higher.shape[0] < 1000  # the most frequent alone


def test_narrow_pictures_get_room_for_words():
    wide = with_legend(np.zeros((100, 20, 3), np.uint8), [(RED, "first"), (None, "second " * 40)])
    assert wide.shape[1] == 320
    assert (wide[:100, 20:] == 255).all()


def test_colours_without_a_palette_differ():
    colours = class_colours(None, 20)
    assert len(set(colours)) == 20
    assert class_colours([(1, 2, 3)], 3)[0] == (1, 2, 3)
    assert len(class_colours("random", 4)) == 4


def test_panoptic_maps_and_classes_of_pictures():
    cells = torch.zeros(1, 60, 80, dtype=torch.long)
    cells[:, :30], cells[:, 30:, :40], cells[:, 30:, 40:] = 1, 1001, 133  # two of class 1, and none
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=cells))
    painter = Painter("mmdet", {"classes": ("sky", "cat"), "palette": [BLUE, RED]})
    drawn = painter(np.zeros((60, 80, 3), np.uint8), sample, legend=True)[..., ::-1]
    factor = 512 // 80 + 1
    assert drawn[5, 5, 0] > 100
    assert (drawn[30 * factor, : 40 * factor] == 255).all()  # the edge of the two
    assert (drawn[10 * factor :][: 60 * factor] == RED).all(-1).any()
    guess = DataSample().set_pred_score(torch.tensor([0.1, 0.9])).set_gt_label(0)
    whole = Painter("mmpretrain", {"classes": ("cat", "dog")})
    for truth in (False, True):
        assert whole(np.zeros((40, 40, 3), np.uint8), guess, truth=truth).shape[0] > 520


def test_detectors_without_boxes_and_scores():
    masks = torch.zeros(1, 600, 800, dtype=torch.bool)
    masks[0, 100:200, 300:400] = True
    found = InstanceData(bboxes=torch.zeros(1, 4), labels=torch.tensor([0]), scores=torch.tensor([0.9]), masks=masks)
    drawn = Painter("mmdet", {})(np.zeros((600, 800, 3), np.uint8), DetDataSample(pred_instances=found))
    rows = np.flatnonzero(drawn.any((1, 2)))
    assert abs(rows[0] - 100) < 3
    assert abs(rows[-1] - 200) < 3
    truth = InstanceData(bboxes=torch.tensor([[10.0, 20, 90, 80]]), labels=torch.tensor([3]))
    assert Painter("mmdet", {})(drawn, DetDataSample(gt_instances=truth), truth=True).any()
