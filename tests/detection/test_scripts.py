"""Programs of OpenMMLab and of others where mmcv is not compiled: ``python -m visionpe.detection SCRIPT ...``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from clients.openmmlab_tools import run_all

from visionpe.detection.running import scripts

ROOT = Path(__file__).parents[2]
SEES = "import json, sys; print(json.dumps([__name__, sys.argv, sys.path[0], __file__]))"


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script would find of its own, and what is left behind."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setenv(scripts.SWITCH, "")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mmdet/tools/test.py", "tools/test.py"),
        ("mmdet:tools/browse_dataset.py", "tools/analysis_tools/browse_dataset.py"),
        ("mmdet::mot/browse_dataset", "tools/analysis_tools/mot/browse_dataset.py"),
        ("mmseg/.mim/tools/train.py", "tools/train.py"),
        ("mmpretrain:get_flops", "tools/analysis_tools/get_flops.py"),
    ],
)
def test_programs_are_found_by_name(name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scripts.find_script(name)
    assert found.as_posix().endswith(f"/.mim/{file}")
    assert found.is_file()
    monkeypatch.chdir(tmp_path)
    if "::" not in name:
        (here := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        here.write_text("")
        assert scripts.find_script(name) == Path(name)  # a file of that name comes first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nofile.py"], "SCRIPT 'nofile.py' is no file, and no program"),
        (["numpy/tools/x.py"], "allowed: a path, or such as mmdet/tools/test.py"),
        (["mmdet:tset.py"], "mmdet brings no programs of that name; allowed: mmdet/tools/test.py"),
        (["mmdet:zzz"], "--list mmdet names them"),
        (
            ["mmseg:browse_dataset.py"],
            "mmseg/tools/analysis_tools/browse_dataset.py, mmseg/tools/misc/browse_dataset.py",
        ),
        (["-m"], "allowed: the name of a module"),
        (["-m", "none.such"], "-m none.such: allowed: the name of a module"),
    ],
)
def test_what_is_no_program(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert scripts.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_help_and_list(capsys: pytest.CaptureFixture) -> None:
    assert scripts.main([]) == 2
    assert scripts.main(["--help"]) == 0
    assert "usage: python -m visionpe.detection SCRIPT ..." in capsys.readouterr().out
    assert scripts.main(["--list", "mmseg"]) == 0
    listed = capsys.readouterr().out.split()
    assert "mmseg/tools/train.py" in listed
    assert all(scripts.find_script(name) for name in listed)


def test_a_script_sees_what_python_would_give_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    script = tmp_path / "a b.py"
    script.write_text(SEES)
    assert scripts.main([str(script), "-m", "--x=1"]) == 0
    seen = ["__main__", [str(script), "-m", "--x=1"], str(tmp_path), str(script)]
    assert json.loads(capsys.readouterr().out) == seen
    assert os.environ[scripts.SWITCH] == "1"


def test_a_module_and_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "some_module_of_mine.py").write_text(SEES + "; sys.exit(3)")
    sys.path[0] = str(tmp_path)
    with pytest.raises(SystemExit, match="3"):
        scripts.main(["-m", "some_module_of_mine", "a"])
    name, argv, *_ = json.loads(capsys.readouterr().out)
    assert name == "__main__"
    assert argv == [str(tmp_path / "some_module_of_mine.py"), "a"]


def test_what_we_refuse_in_a_script_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty.pth").write_text("")
    script = tmp_path / "run.py"
    script.write_text(
        f"from mmengine.runner import load_checkpoint; load_checkpoint(None, {str(tmp_path / 'empty.pth')!r})"
    )
    assert scripts.main([str(script)]) == 2
    assert capsys.readouterr().err.startswith("python -m visionpe.detection: error: ")


def test_programs_read_what_mmengine_saves(tmp_path: Path) -> None:
    """Their publish_model.py reads checkpoints by plain torch.load, which knows no log buffers."""
    from mmengine.logging import HistoryBuffer

    torch.save({"state_dict": {}, "message_hub": HistoryBuffer([1.0], [1])}, tmp_path / "a.pth")
    (tmp_path / "run.py").write_text(
        f"import torch; assert torch.load({str(tmp_path / 'a.pth')!r})['state_dict'] == {{}}"
    )
    assert scripts.main([str(tmp_path / "run.py")]) == 0


def test_the_switch_brings_operators_and_configs(tmp_path: Path) -> None:
    """The start-up line alone, whoever starts Python: nothing else of ours is named."""
    (tmp_path / "mine.py").write_text('_base_ = "visionpe::digits/fcn_rope_vit.py"\n')
    startup = (ROOT / "build_backend" / "startup.py").read_text()
    code = f"""
exec({startup!r}, {{}})
import sys
from importlib.util import find_spec
from mmengine.config import Config
config = Config.fromfile("mine.py", import_custom_modules=False)
assert config.model.type == "EncoderDecoder" and "_scope_" not in config.model
assert "mmcv" not in sys.modules
assert find_spec("mmdet").origin and "mmdet" not in sys.modules
import mmdet
assert mmdet.__version__ and mmdet.__spec__.loader.get_filename() == mmdet.__file__ and sys.modules["mmdet"] is mmdet
import mmcv.ops, mmdet.structures, torch
assert mmcv.ops.nms(torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4]]), torch.tensor([0.5, 0.9]), 0.5)[1].tolist() == [1]
"""
    paths = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    environment = {**os.environ, scripts.SWITCH: "1", "PYTHONPATH": paths}
    command = [sys.executable, "-S", "-c", code]  # without the start-up line that is installed
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SPAWNS = """
import torch
import mmdet.structures, mmcv.ops

class Data(torch.utils.data.Dataset):
    def __len__(self): return 1
    def __getitem__(self, index):
        return mmcv.ops.nms(torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4]]), torch.tensor([0.5, 0.9]), 0.5)[1]

if __name__ == "__main__":
    print([x.tolist() for x in torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context="spawn")])
"""


@pytest.mark.long  # that the switch is set, and what it brings, is tested above
def test_workers_that_are_spawned_have_the_operators(tmp_path: Path) -> None:
    (tmp_path / "spawns.py").write_text(SPAWNS)
    # The start-up line of this checkout, be another one installed or none.
    (tmp_path / "sitecustomize.py").write_text((ROOT / "build_backend" / "startup.py").read_text())
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-m", "visionpe.detection", "spawns.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "[[[1]]]\n", done.stderr


@pytest.mark.long
def test_training_testing_and_predicting_by_programs_of_mmseg(tmp_path: Path) -> None:
    results = {row["what"]: row["result"] for row in run_all(tmp_path, ("none",), ("mmseg",))}
    assert results == dict.fromkeys(["tools/train.py", "tools/test.py", "MMSegInferencer"], "works")
