"""``visionpe``: commands are found, and each tells of itself."""

from __future__ import annotations

import pytest

from visionpe.cli import COMMANDS, main
from visionpe.cli.common import key_values
from visionpe.utils.errors import InputError


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"visionpe {command}" in capsys.readouterr().out


def test_the_command_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("visionpe 0.")
    assert main(["quikstart"]) == 2
    assert capsys.readouterr().err == "visionpe: error: unknown command 'quikstart'; did you mean quickstart?\n"
    assert main(["quickstart", "nothing"]) == 2
    assert "allowed: classification, detection, segmentation, rooms" in capsys.readouterr().err


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "configs", "coco"]) == 0
    names = capsys.readouterr().out.split()
    assert "coco/mask_rcnn_cswin_t_1x.py" in names
    assert not any("_base_" in name for name in names)
    assert main(["list", "models", "rope_vit_*"]) == 0
    assert capsys.readouterr().out.split() == ["rope_vit_b", "rope_vit_l", "rope_vit_s", "rope_vit_ti"]
    assert main(["list", "policies", "rope_vit_ti"]) == 0
    assert capsys.readouterr().out.startswith("extrapolate\n")
    assert main(["list"]) == 0
    assert "arXiv" in capsys.readouterr().out
    for arguments in (["configs", "nowhere"], ["models", "nothing_*"], ["policies"]):
        assert main(["list", *arguments]) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_key_values() -> None:
    given = ["depth=2", "size=(1, 2)", "name=rope", "on=True", "a.b=x=y"]
    assert key_values("--x", given) == {"depth": 2, "size": (1, 2), "name": "rope", "on": True, "a.b": "x=y"}
    for bad in ("depth", "=3"):
        with pytest.raises(InputError, match="not KEY=VALUE"):
            key_values("--x", [bad])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_of_points_is_refused(seed: int, capsys: pytest.CaptureFixture) -> None:
    assert main(["points", "predict", "--room", "1", "--seed", str(seed)]) == 2
    assert f"--seed {seed}: must be 0 to 4294967295" in capsys.readouterr().err
