"""Drawing and prediction: what is drawn stands where it should, at any size, for all three tasks."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from visionpe.data.digits import load_digits
from visionpe.detection.predicting.drawing import Painter, contact_sheet, enlarged, enlargement, write_image
from visionpe.detection.predicting.pictures import describe
from visionpe.detection.predicting.predictor import Predictor, read_image
from visionpe.detection.running import runner as setup

ROOT = Path(__file__).parents[2]
DETECTOR, SEGMENTOR, CLASSIFIER = (
    str(ROOT / f"configs/digits/{name}.py") for name in ("mask_rcnn_rope_vit", "fcn_cpe_vit", "rope_mixed_vit")
)


def tool(name):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(file, path):
    """A config and a checkpoint of random weights for it."""
    config = setup.load_config(file)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    torch.save({"state_dict": model.state_dict()}, path)
    return config, model.eval()


def detection(score=0.9):
    masks = torch.zeros(1, 40, 60, dtype=torch.bool)
    masks[0, 10:20, 30:50] = True
    found = InstanceData(
        bboxes=torch.tensor([[30.0, 10.0, 50.0, 20.0]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([score]),
        masks=masks,
    )
    return DetDataSample(pred_instances=found)


def test_boxes_and_masks_are_drawn_in_their_place_on_an_enlarged_picture():
    image = np.full((40, 60, 3), 90, np.uint8)
    factor = enlargement(image)
    assert factor == 9
    painter = Painter("mmdet", {"classes": ("a", "b"), "palette": [(255, 0, 0), (0, 0, 255)]})
    drawn = painter(image, detection())
    assert drawn.shape == (40 * factor, 60 * factor, 3)
    changed = np.abs(drawn.astype(int) - 90).max(-1) > 8
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    # The label stands inside the box; lines are two pixels wide.
    assert abs(rows[0] - 10 * factor) <= 3
    assert abs(rows[-1] - 20 * factor) <= 3
    assert abs(columns[0] - 30 * factor) <= 3
    assert abs(columns[-1] - 50 * factor) <= 3
    # BGR: the palette's blue is blue.
    middle = drawn[15 * factor, 45 * factor]
    assert middle[0] > middle[2] + 30
    assert np.array_equal(painter(image, detection(score=0.2)), np.full_like(drawn, 90))


def test_large_pictures_are_not_enlarged():
    image = np.zeros((600, 800, 3), np.uint8)
    assert enlargement(image) == 1
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, 600, 800, dtype=torch.long)))
    assert Painter("mmseg", {"classes": ("a",), "palette": [[0, 0, 0]]})(image, sample).shape == image.shape


def test_enlarging_leaves_the_sample_as_it_was():
    sample = detection()
    larger = enlarged(sample, 3)
    assert larger.pred_instances.bboxes.tolist() == [[90, 30, 150, 60]]
    assert larger.pred_instances.masks.shape == (1, 120, 180)
    assert larger.pred_instances.masks.sum() == 9 * 200
    assert sample.pred_instances.bboxes.tolist() == [[30, 10, 50, 20]]
    assert sample.pred_instances.masks.shape == (1, 40, 60)


def test_segmentation_is_painted_in_the_palette():
    image = np.zeros((64, 64, 3), np.uint8)
    maps = torch.zeros(1, 64, 64, dtype=torch.long)
    maps[0, :, 32:] = 1
    sample = SegDataSample(pred_sem_seg=PixelData(data=maps), gt_sem_seg=PixelData(data=1 - maps))
    painter = Painter("mmseg", {"classes": ("a", "b"), "palette": [[0, 0, 0], [200, 0, 0]]})
    drawn, truth = painter(image, sample), painter(image, sample, truth=True)
    assert drawn.shape == (512, 512, 3)
    assert drawn[:, :256].max() == 0
    assert (drawn[:, 256:] == drawn[0, 300]).all()
    assert drawn[0, 300, 2] > 100  # red, in BGR
    assert np.array_equal(truth[:, ::-1], drawn)


def test_unknown_scope():
    with pytest.raises(ValueError, match="allowed: mmdet, mmseg, mmpretrain"):
        Painter("mmocr", {})


def test_contact_sheet_keeps_every_picture():
    pictures = [np.full((10 + i, 20 - i, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = contact_sheet([pictures[:3], pictures[3:]], gap=2)
    assert sheet.shape == (2 * (14 + 2) + 2, 3 * (20 + 2) + 2, 3)
    for left in (0, 22, 44, 66):
        assert (sheet[:, left : left + 2] == 255).all()
    for i, picture in enumerate(pictures):
        assert (sheet == 10 * i).all(-1).sum() == picture[..., 0].size


def test_written_whole_or_not_at_all(tmp_path):
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    write_image(tmp_path / "new/x.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "new/x.png")), image)
    assert len(list((tmp_path / "new").iterdir())) == 1
    with pytest.raises(ValueError, match="no image format"):
        write_image(tmp_path / "x.doc", image)


def test_a_detector_predicts_in_pixels_of_the_picture(tmp_path):
    config, _ = weights(DETECTOR, tmp_path / "w.pth")
    config.model.test_cfg.rcnn.score_thr = 0.0
    predictor = Predictor(config, str(tmp_path / "w.pth"), "cpu")
    assert predictor.meta["classes"] == tuple("0123456789")
    sample = predictor(np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8))
    found = sample.pred_instances
    assert len(found) > 0
    assert found.masks.shape == (len(found), 50, 90)
    assert (found.bboxes.min(), found.bboxes[:, ::2].max() <= 90, found.bboxes[:, 1::2].max() <= 50) == (0, True, True)


def test_a_segmentor_predicts_every_pixel_and_as_the_model_does(tmp_path):
    config, model = weights(SEGMENTOR, tmp_path / "w.pth")
    predictor = Predictor(config, str(tmp_path / "w.pth"), "cpu")
    assert predictor.meta["classes"][0] == "background"
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    sample = predictor(image)
    assert sample.pred_sem_seg.data.shape == (1, 48, 80)
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float()[None]
    with torch.no_grad():
        logits = model.encode_decode((pixels - 68) / 40.5, [dict(img_shape=(48, 80))])
    torch.testing.assert_close(sample.seg_logits.data, logits[0], rtol=1e-4, atol=1e-4)


def test_a_classifier_of_data_in_memory_takes_pictures(tmp_path):
    config, model = weights(CLASSIFIER, tmp_path / "w.pth")
    digit = load_digits("test")[0][3]
    cv2.imwrite(str(tmp_path / "digit.png"), digit[0].numpy())
    predictor = Predictor(config, str(tmp_path / "w.pth"), "cpu")
    picture = read_image(tmp_path / "digit.png")
    sample = predictor(picture)
    batch = model.data_preprocessor({"inputs": digit[None]})
    with torch.no_grad():
        expected = model(batch["inputs"], mode="tensor").softmax(1)[0]
    torch.testing.assert_close(sample.pred_score, expected, rtol=1e-4, atol=1e-5)
    assert Painter("mmpretrain", predictor.meta)(picture, sample).shape[0] >= 500
    text = describe(sample, predictor.meta["classes"], 0.3)
    assert text.startswith(f"{int(expected.argmax())} ")
    assert text.count(",") == 4


def test_command_line_refuses_what_it_cannot_use(tmp_path, capsys):

    def refused(*arguments):
        assert tool("predict").main(list(arguments)) == 2
        return capsys.readouterr().err

    (tmp_path / "text.jpg").write_text("no picture")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    weights(SEGMENTOR, tmp_path / "w.pth")
    good = ["--config", SEGMENTOR, "--checkpoint", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out")]
    for images, message in (
        (["none.jpg"], "image 'none.jpg' does not exist"),
        ([str(tmp_path / "text.jpg")], "cannot be read"),
        ([str(tmp_path / "a.png"), "elsewhere/a.jpg"], "same name"),
    ):
        assert message in refused(*images, *good)
    assert "--score-thr 2" in refused(str(tmp_path / "a.png"), *good, "--score-thr", "2.0")
    assert "checkpoint 'no.pth' does not exist" in refused(
        str(tmp_path / "a.png"), "--config", SEGMENTOR, "--checkpoint", "no.pth"
    )
    assert "does not fit the model" in refused(str(tmp_path / "a.png"), "--config", DETECTOR, *good[2:])
    assert not (tmp_path / "out").exists()


def test_metainfo_of_a_config_wins():
    init_default_scope("mmdet")
    dataset = Config.fromfile(DETECTOR).test_dataloader.dataset
    meta = Predictor._metainfo(dataset)
    assert len(meta["classes"]) == len(meta["palette"]) == 10
    del dataset["metainfo"]
    assert len(Predictor._metainfo(dataset)["classes"]) == 80
