"""Installing the stand-in for mmcv's compiled extension: when, where, and what it says."""

import importlib.util
import subprocess
import sys
import warnings

import mmcv
import pytest
import torch
from mmengine.utils.dl_utils import collect_env, mmcv_full_available

from visionpe.detection.operators import extension as ops
from visionpe.detection.operators.extension import NAME, OPS, StandIn
from visionpe.detection.operators.needed import needs

NMS = """
import torch
def nms(boxes, scores, iou_threshold, offset):
    return {answer}
"""
WORKS, WRONG = NMS.format(answer="torch.tensor([1, 2])"), NMS.format(answer="torch.tensor([0, 1, 2])")
OTHER_TORCH = "raise ImportError('_ext.so: undefined symbol: _ZN3c104impl')"


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A process in which nothing is installed yet; returns where a compiled extension would lie."""
    monkeypatch.setitem(sys.modules, NAME, None)  # so that the end puts the old one back
    monkeypatch.delitem(sys.modules, NAME)
    monkeypatch.setattr(mmcv, "_ext", None, raising=False)
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    return tmp_path / "_ext.py"


def test_in_use_without_a_compiled_extension(bare):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ops.install()
        first = sys.modules[NAME]
        assert isinstance(first, StandIn)
        assert ops.install()
    assert sys.modules[NAME] is first is mmcv._ext
    assert importlib.util.find_spec(NAME) is first.__spec__


def test_a_working_extension_is_never_shadowed(bare):
    bare.write_text(WORKS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not ops.install()
        assert not ops.install()
    assert sys.modules[NAME].__file__ == str(bare)


@pytest.mark.parametrize(
    ("source", "said"),
    [(OTHER_TORCH, "undefined symbol"), (WRONG, r"keeps boxes \[0, 1, 2\]"), ("", "has no attribute 'nms'")],
    ids=["other torch", "wrong", "empty"],
)
def test_a_broken_extension_gives_way_with_one_warning(bare, source, said):
    bare.write_text(source)
    with pytest.warns(UserWarning, match=said) as caught:
        assert ops.install()
    assert len(caught) == 1
    assert torch.__version__ in str(caught[0].message)
    assert "--no-binary onedl-mmcv" in str(caught[0].message)
    assert isinstance(sys.modules[NAME], StandIn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ops.install()


def test_without_mmcv_the_error_says_what_to_install(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv", None)
    with pytest.raises(ModuleNotFoundError, match=r"visionpe\[detection\]"):
        ops.install()


def test_too_late_is_said(bare, monkeypatch):
    for name in list(sys.modules):
        if name == "mmcv.ops" or name.startswith("mmcv.ops."):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mmcv.ops")
    with pytest.warns(UserWarning, match="import visionpe.detection first"):
        assert ops.install()


def test_an_operator_that_is_not_there_is_named():
    module = StandIn()
    assert hasattr(module, "hard_voxelize_forward")  # mmcv asks at import
    with pytest.raises(NotImplementedError, match=r"'hard_voxelize_forward' has no stand-in.*--no-binary onedl-mmcv"):
        module.hard_voxelize_forward(torch.zeros(1), size=2)
    with pytest.raises(AttributeError, match="__wrapped__"):
        module.__wrapped__  # noqa: B018  introspection must not find an operator
    assert set(OPS) <= set(dir(module))


def test_mmcv_says_which_operator_is_missing():
    from mmcv.ops import nms_rotated

    with pytest.raises(NotImplementedError, match="'nms_rotated'"):
        nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5)


def test_other_libraries_find_it():
    assert importlib.util.find_spec(NAME) is not None
    assert mmcv_full_available()  # asked for by every constructor of an optimizer
    assert importlib.import_module("mmcv.ops").get_compiler_version() == ops.get_compiler_version()
    assert collect_env()


def test_a_fresh_process_needs_only_the_import():
    """Silent, and mmcv.ops, mmdet and mmseg are usable after it."""
    code = (
        "import visionpe.detection, sys\n"
        "import mmcv.ops, mmdet.models, mmseg.models\n"
        "from mmdet.models.layers.bbox_nms import batched_nms\n"
        "assert batched_nms is mmcv.ops.batched_nms\n"
        "assert mmseg.models.decode_heads.point_head.point_sample is mmcv.ops.point_sample\n"
        "assert type(sys.modules['mmcv._ext']).__name__ == 'StandIn'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" == done.stderr


def test_what_openmmlab_takes_from_mmcv_is_there():
    """But for the lanes of CLRNet; and what is read of the packages is what they hold."""
    found = needs()
    assert {name for name, need in found.items() if need.lacking} <= {"line_nms"}
    assert {"nms_match", "MaskedConv2d", "CARAFEPack", "PSAMask", "DeformRoIPoolPack", "SAConv2d"} <= found.keys()
    assert "mmseg/models/decode_heads/psa_head.py" in found["PSAMask"].sources
    assert "mmdet::strong_baselines" in found["SyncBatchNorm"].configs
    assert {"modulated_deform_conv_forward"} < found["ModulatedDeformConv2dPack"].functions
    assert "nms" in found["batched_nms"].functions
