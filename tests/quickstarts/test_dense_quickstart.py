"""The parts of the detection and segmentation quickstarts that need no training."""

import csv
import json
from pathlib import Path

import pytest
from mmengine.config import ConfigDict

from visionpe.cli.quickstart import dense_parser, detection
from visionpe.quickstarts.dense import report
from visionpe.quickstarts.dense.evaluation import set_scale
from visionpe.quickstarts.dense.tasks import DETECTION, SEGMENTATION
from visionpe.quickstarts.trainings import Training
from visionpe.utils.errors import InputError

ROWS = [
    {"encoding": e, "scale": s, "mIoU": m, "mIoU of digits": m - 4, "pixel accuracy": 96.0}
    for e, s, m in (("rope", 1.0, 61.0), ("rope", 2.0, 40.04), ("cpe", 1.0, 59.5), ("cpe", 2.0, 45.0))
]


def test_numbers_are_read_from_the_metrics():
    metrics = {"mIoU": 60.0, "aAcc": 96.0, "IoU/background": 98.0, "IoU/0": 50.0, "IoU/1": 54.0}
    found = {name: read(metrics) for name, read in SEGMENTATION.columns.items()}
    assert found == {"mIoU": 60.0, "mIoU of digits": 52.0, "pixel accuracy": 96.0}
    metrics = {f"coco/{kind}_mAP{at}": 0.5 for kind in ("bbox", "segm") for at in ("", "_50")}
    assert all(read(metrics) == 50 for read in DETECTION.columns.values())


def test_every_default_encoding_has_a_config():
    for task in (DETECTION, SEGMENTATION):
        assert set(task.encodings) <= set(task.known())
        assert len(task.known()) >= 3
        assert all(task.config(name).is_file() for name in task.known())


def test_options_lead_to_the_scenes(tmp_path):
    options = DETECTION.options(tmp_path / "d")
    assert options["train_dataloader.dataset.data_root"] == f"{tmp_path}/d/coco/"
    assert options["test_evaluator.ann_file"] == f"{tmp_path}/d/coco/annotations/instances_val2017.json"
    assert not any("evaluator" in key for key in SEGMENTATION.options(tmp_path))


def test_markdown_marks_the_best_of_each_scale():
    lines = report.markdown(SEGMENTATION, ROWS).splitlines()
    assert lines[0] == "| | encoding | 1x | 2x |"
    assert lines[2] == "| mIoU | rope | **61.0** | 40.0 |"
    assert lines[3] == "| mIoU | cpe | 59.5 | **45.0** |"


def test_files_hold_every_number(tmp_path):
    files = report.write(SEGMENTATION, ROWS, tmp_path, {"seconds": {"training": 1.0}})
    assert [file.name for file in files] == ["results.md", "results.csv", "results.json"]
    with files[1].open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["mIoU"]) for row in read] == [row["mIoU"] for row in ROWS]
    content = json.loads(files[2].read_text())
    assert content["rows"] == ROWS
    assert content["seconds"] == {"training": 1.0}


def test_closing_words_say_what_the_numbers_say():
    first, second, third = report.closing(SEGMENTATION, ROWS)
    assert first == "rope at the trained size: mIoU 61.0 (goal 60): reached."
    assert second.endswith("mIoU 59.5 (goal 60): missed.")
    assert third == "mIoU at 2 times the size: cpe 45.0, rope 40.0."
    assert len(report.closing(SEGMENTATION, [ROWS[0]])) == 1


def test_scale_of_the_test_pipeline():
    def config(*steps):
        pipeline = [dict(type=step, scale=(64, 64), keep_ratio=True) for step in steps]
        return ConfigDict(filename="x.py", test_dataloader=dict(dataset=dict(pipeline=pipeline)))

    given = config("Load", "Resize")
    set_scale(given, 1.5)
    assert given.test_dataloader.dataset.pipeline[1] == {"type": "Resize", "scale_factor": 1.5}
    with pytest.raises(InputError, match="no Resize"):
        set_scale(config("Load"), 2)


def test_a_training_counts_iterations(tmp_path):
    training = Training("a", Path("c.py"), tmp_path, 0, 20, unit="iter")
    (tmp_path / "1/vis_data").mkdir(parents=True)
    (tmp_path / "1/vis_data/scalars.json").write_text('{"loss": 2.5, "iter": 10, "step": 10}\n{"loss": 1.5, "it')
    assert training.done() == (10, 2.5)
    assert not training.finished
    (tmp_path / "iter_20.pth").touch()
    assert training.finished


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encodings", "magic"], "--encodings magic: no "),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
        (["--scales", "1", "-2"], "--scales -2: must be above 0"),
    ],
)
def test_bad_input(arguments, message, tmp_path, capsys):
    assert detection([*arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert dense_parser("p", "segmentation").parse_args([]).encodings == ["cpe"]
