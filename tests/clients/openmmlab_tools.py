"""Run the programs that mmdet, mmseg and mmpretrain bring, and their inferencers, on tiny models and data.

    python tests/clients/openmmlab_tools.py [WORDS ...]
    python tests/clients/openmmlab_tools.py --table < ROWS

Prints one JSON line a program: library, version, what, result. Each runs in a process of its own, as
`python -m visionpe.detection SCRIPT`; with WORDS only those whose name holds one of them, and what they read.
`--table` makes of such lines the table in docs/openmmlab.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from visionpe.data.digit_scenes.writing import SceneSettings, write_scenes

DISTRIBUTIONS = {
    "mmdet": "onedl-mmdetection",
    "mmseg": "onedl-mmsegmentation",
    "mmpretrain": "onedl-mmpretrain",
}
CONFIGS = {
    "mmdet": """
_base_ = "visionpe::digits/mask_rcnn_rope_vit.py"
root = "{data}/coco/"
model = dict(
    backbone=dict(embed_dim=16, depth=1, num_heads=2, out_indices=(0,)),
    neck=dict(in_channels=16),
    test_cfg=dict(rcnn=dict(score_thr=0.0)),
)
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=root))
train_dataloader = dict(batch_size=4, **loader)
val_dataloader = dict(batch_size=2, **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=root + "annotations/instances_val2017.json")
test_evaluator = val_evaluator
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
""",
    "mmseg": """
_base_ = "visionpe::digits/fcn_rope_vit.py"
model = dict(
    backbone=dict(embed_dim=16, depth=1, num_heads=2, out_indices=(0,)),
    neck=dict(in_channels=16),
    decode_head=dict(num_classes=19, loss_decode=dict(class_weight=None)),
)
data = dict(
    type="CityscapesDataset", data_root="{data}/ade", metainfo=None, img_suffix=".jpg", seg_map_suffix=".png"
)
loader = dict(num_workers=0, persistent_workers=False, dataset=data)
train_dataloader = dict(batch_size=4, **loader)
val_dataloader = dict(batch_size=2, **loader)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2), visualization=dict(type="SegVisualizationHook")
)
tta_model = dict(type="SegTTAModel")
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale_factor=r, keep_ratio=True) for r in (1.0, 1.5)],
            [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
            [dict(type="LoadAnnotations", reduce_zero_label=True)],
            [dict(type="PackSegInputs")],
        ],
    ),
]
""",
    "mmpretrain": """
_base_ = "visionpe::digits/rope_mixed_vit.py"
model = dict(in_chans=3, embed_dim=16, depth=1, num_heads=2, data_preprocessor=dict(mean=[79.0] * 3, std=[91.0] * 3))
steps = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=24), dict(type="PackInputs")]
classes = list("0123456789")
data = dict(_delete_=True, type="CustomDataset", data_prefix="{data}/classes", classes=classes, pipeline=steps)
train_dataloader = dict(batch_size=10, dataset=data)
val_dataloader = dict(batch_size=10, dataset=data)
test_dataloader = dict(batch_size=10, dataset=data)
train_cfg = dict(max_epochs=1, val_interval=1)


default_hooks = dict(logger=dict(interval=1))
""",
}
# What each program gets: {config}, {last} the checkpoint, {log} of the training, {results} of the test, {out}.
PROGRAMS = {
    "mmdet": {
        "train.py": "{config} --work-dir {work}",
        "test.py": "{config} {last} --work-dir {out} --out {results} --show-dir {out}/shown"
        " --cfg-options test_evaluator.outfile_prefix={work}/found",
        "test.py --tta": "{config} {last} --work-dir {out} --tta",
        "analysis_tools/browse_dataset.py": "{config} --not-show --output-dir {out}",
        "analysis_tools/get_flops.py": "{config} --num-images 2",
        "analysis_tools/analyze_logs.py plot_curve": "{log} --keys loss --style ggplot --out {out}.png",
        "analysis_tools/analyze_logs.py cal_train_time": "{log}",
        "analysis_tools/eval_metric.py": "{config} {results}",
        "analysis_tools/analyze_results.py": "{config} {results} {out} --topk 2",
        "analysis_tools/confusion_matrix.py": "{config} {results} {out}",
        "analysis_tools/coco_error_analysis.py": "{work}/found.bbox.json {out} --ann {coco}",
        "misc/print_config.py": "{config}",
        "misc/split_coco.py": "--data-root {data}/coco --out-dir {out} --labeled-percent 50 --fold 1",
        "dataset_converters/images2coco.py": "{data}/coco/val2017 {data}/classes.txt made.json",
        "model_converters/publish_model.py": "{last} {out}.pth",
    },
    "mmseg": {
        "train.py": "{config} --work-dir {work}",
        "test.py": "{config} {last} --work-dir {out} --out {results}",
        "test.py --show-dir": "{out}/shown {config} {last} --work-dir {out}",
        "test.py --tta": "{config} {last} --work-dir {out}",
        "analysis_tools/browse_dataset.py": "{config} --not-show --output-dir {out}",
        "misc/browse_dataset.py": "{config} --not-show --output-dir {out}",
        "analysis_tools/get_flops.py": "{config} --shape 64 64",
        "analysis_tools/analyze_logs.py": "{log} --keys loss --out {out}.png",
        "analysis_tools/confusion_matrix.py": "{config} {results} {out}",
        "analysis_tools/benchmark.py": "{config} {last} --repeat-times 1 --work-dir {out}",
        "misc/print_config.py": "{config}",
        "misc/publish_model.py": "{last} {out}.pth",
        "deployment/pytorch2torchscript.py": "{config} --checkpoint {last} --shape 64 --output-file {out}.pt",
    },
    "mmpretrain": {
        "train.py": "{config} --work-dir {work}",
        "test.py": "{config} {last} --work-dir {out} --out {results}",
        "test.py --tta": "{config} {last} --work-dir {out}",
        "visualization/browse_dataset.py": "{config} --not-show --output-dir {out}",
        "visualization/vis_scheduler.py": "{config} --not-show --save-path {out}.png --dataset-size 20"
        " --cfg-options custom_hooks=[]",
        "visualization/vis_tsne.py": "{config} --checkpoint {last} --work-dir {out} --perplexity 5 --n-iter 250",
        "visualization/vis_cam.py": "{photo} {config} {last} --save-path {out}.png",
        "analysis_tools/get_flops.py": "{config} --shape 24",
        "analysis_tools/analyze_logs.py plot_curve": "{log} --keys loss --out {out}.png",
        "analysis_tools/analyze_logs.py cal_train_time": "{log}",
        "analysis_tools/eval_metric.py": "{results} --metric type=Accuracy topk=1",
        "analysis_tools/analyze_results.py": "{config} {results} --out-dir {out} --topk 2",
        "analysis_tools/confusion_matrix.py": "{config} {results} --show-path {out}.png",
        "misc/print_config.py": "{config}",
        "misc/verify_dataset.py": "{config} --out-path {out}.txt --phase train",
        "model_converters/publish_model.py": "{last} {out}.pth",
        "kfold-cross-valid.py": "{config} --num-splits 2 --fold 0 --work-dir {out}"
        " --cfg-options train_dataloader.batch_size=2",
    },
}
INFERENCERS = {
    "mmdet": "from mmdet.apis import DetInferencer\n"
    "found = DetInferencer({config!r}, {last!r}, device='cpu')({photo!r}, out_dir={out!r})\n"
    "assert len(found['predictions'][0]['bboxes']) > 0",
    "mmseg": "from mmseg.apis import MMSegInferencer\n"
    "found = MMSegInferencer({config!r}, {last!r}, device='cpu')({photo!r}, out_dir={out!r})\n"
    "assert found['predictions'].shape == (64, 64)",
    "mmpretrain": "from mmpretrain import ImageClassificationInferencer\n"
    "found = ImageClassificationInferencer({config!r}, {last!r}, device='cpu')({photo!r})\n"
    "assert 0 <= found[0]['pred_label'] < 10",
}
NAMES = {"mmdet": "DetInferencer", "mmseg": "MMSegInferencer", "mmpretrain": "ImageClassificationInferencer"}


def prepare(folder: Path) -> None:
    """Write the data and the configs."""
    data = folder / "data"
    write_scenes(data, SceneSettings(train=8, val=4))
    for index, picture in enumerate(sorted((data / "coco/train2017").iterdir())):
        for label in (index, index + 1):
            (target := data / "classes" / str(label)).mkdir(parents=True, exist_ok=True)
            (target / picture.name).write_bytes(picture.read_bytes())
    (data / "classes/9").mkdir()
    (data / "classes/9/a.jpg").write_bytes(picture.read_bytes())
    (data / "classes.txt").write_text("\n".join("0123456789"))
    for library, text in CONFIGS.items():
        (folder / f"{library}_tiny.py").write_text(text.format(data=data))


def places(folder: Path, library: str, number: int) -> dict[str, str]:
    """What stands for the words in braces."""
    work = folder / library
    saved, logs = sorted(work.glob("*.pth")), sorted(work.glob("*/vis_data/[0-9]*.json"))
    return {
        "config": str(folder / f"{library}_tiny.py"),
        "data": str(folder / "data"),
        "coco": str(folder / "data/coco/annotations/instances_val2017.json"),
        "photo": str(folder / "data/coco/val2017/000000000001.jpg"),
        "work": str(work),
        "last": str(saved[-1]) if saved else "none.pth",
        "log": str(logs[-1]) if logs else "none.json",
        "results": str(folder / (f"{library}_masks" if library == "mmseg" else f"{library}.pkl")),
        "out": str(folder / f"{library}_out_{number}"),
    }


def outcome(command: list[str], folder: Path) -> str:
    """``works``, or the last line that a program said."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    try:
        done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return "took over ten minutes"
    if done.returncode == 0:
        return "works"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line[:1].isalpha() and "Error: " in line]
    return (errors or lines or [f"exit code {done.returncode}"])[-1].strip()[:200]


def run_all(
    folder: Path, words: tuple[str, ...] = (), libraries: tuple[str, ...] = tuple(PROGRAMS)
) -> Iterator[dict[str, str]]:
    """Yield a row a program, in the order they run: training and test first, as the others read what those write."""
    prepare(folder)
    for library in libraries:
        programs = PROGRAMS[library]
        shared = {"library": library, "version": version(DISTRIBUTIONS[library])}
        commands = {f"tools/{name}": ["-m", "visionpe.detection", f"{library}/tools/{name}"] for name in programs}
        for number, (name, command) in enumerate(commands.items()):
            script, *words_first = command.pop().split()
            if words and name not in ("tools/train.py", "tools/test.py") and not any(word in name for word in words):
                continue
            given = programs[name.removeprefix("tools/")].split()
            filled = [word.format(**places(folder, library, number)) for word in (*words_first, *given)]
            yield {**shared, "what": name, "result": outcome([sys.executable, *command, script, *filled], folder)}
        code = "import visionpe.detection\n" + INFERENCERS[library].format(**places(folder, library, 99))
        yield {**shared, "what": NAMES[library], "result": outcome([sys.executable, "-c", code], folder)}


def rows() -> list[dict[str, str]]:
    """All programs: ``library``, ``version``, ``what`` and ``result``, which is ``works`` or an error's one line."""
    with tempfile.TemporaryDirectory() as folder:
        return list(run_all(Path(folder)))


def table(found: list[dict[str, str]]) -> str:
    """Rows as a table in Markdown, one line a library, then one for each program that does not run."""
    lines = ["| library | programs in `tools/`, and APIs | result |", "|---|---|---|"]
    for library, number in dict.fromkeys((row["library"], row["version"]) for row in found):
        own = [row for row in found if row["library"] == library]
        names = [f"`{row['what'].removeprefix('tools/')}`" for row in own if row["result"] == "works"]
        lines.append(f"| {library} {number} | {', '.join(names)} | works |")
        failed = [row for row in own if row["result"] != "works"]
        lines += [f"| | `{row['what'].removeprefix('tools/')}` | {row['result']} |" for row in failed]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        print(table([json.loads(line) for line in sys.stdin]))
        sys.exit()
    with tempfile.TemporaryDirectory() as made:
        for row in run_all(Path(made), tuple(sys.argv[1:])):
            print(json.dumps(row), flush=True)
