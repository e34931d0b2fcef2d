"""OpenMMLab without compiling: a stand-in for ``mmcv._ext``, the extension that mmcv's C++ build makes.

``install()`` puts it in place where no compiled extension works. It serves the operators that the detection and
segmentation heads call, forward and backward, on CPU and CUDA; any other says how to get the compiled one.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

import torch

from visionpe.detection.operators import attention as ops_attention
from visionpe.detection.operators import boxes as ops_boxes
from visionpe.detection.operators import deform as ops_deform
from visionpe.detection.operators import deform_rois as ops_deform_rois
from visionpe.detection.operators import masks as ops_masks
from visionpe.detection.operators import norms as ops_norms
from visionpe.detection.operators import rois as ops_rois
from visionpe.detection.operators import upsampling as ops_upsampling

NAME = "mmcv._ext"
HOW_TO_COMPILE = (
    "To get the compiled operators: with torch, a C++ compiler and (for CUDA) its toolkit installed, run "
    "`pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall --no-binary onedl-mmcv onedl-mmcv`"
)


def get_compiler_version() -> str:
    """Return the compiler of the operators, for mmengine's report of the environment."""
    return "none (visionpe stand-in)"


def get_compiling_cuda_version() -> str:
    """Return the CUDA version of the operators, for mmengine's report of the environment."""
    return "none (visionpe stand-in)"


OPS: dict[str, Callable] = {
    op.__name__: op
    for op in (
        ops_boxes.nms,
        ops_boxes.softnms,
        ops_boxes.nms_match,
        ops_boxes.sigmoid_focal_loss_forward,
        ops_boxes.sigmoid_focal_loss_backward,
        ops_rois.roi_align_forward,
        ops_rois.roi_align_backward,
        ops_rois.roi_pool_forward,
        ops_rois.roi_pool_backward,
        ops_attention.ms_deform_attn_forward,
        ops_attention.ms_deform_attn_backward,
        ops_deform.deform_conv_forward,
        ops_deform.deform_conv_backward_input,
        ops_deform.deform_conv_backward_parameters,
        ops_deform.modulated_deform_conv_forward,
        ops_deform.modulated_deform_conv_backward,
        ops_deform_rois.deform_roi_pool_forward,
        ops_deform_rois.deform_roi_pool_backward,
        ops_masks.psamask_forward,
        ops_masks.psamask_backward,
        ops_masks.masked_im2col_forward,
        ops_masks.masked_col2im_forward,
        ops_norms.sync_bn_forward_mean,
        ops_norms.sync_bn_forward_var,
        ops_norms.sync_bn_forward_output,
        ops_norms.sync_bn_backward_param,
        ops_norms.sync_bn_backward_data,
        ops_upsampling.carafe_naive_forward,
        ops_upsampling.carafe_naive_backward,
        ops_upsampling.carafe_forward,
        ops_upsampling.carafe_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}


class StandIn(ModuleType):
    """``mmcv._ext`` made of ``OPS``; any other operator is there too, and raises NotImplementedError when called."""

    def __init__(self) -> None:
        super().__init__(NAME, "Stand-in for mmcv's compiled extension.")
        # mmengine asks find_spec for it, which refuses a module without a spec.
        self.__spec__ = ModuleSpec(NAME, loader=None, origin="visionpe.detection.operators.extension")
        vars(self).update(OPS)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"mmcv's operator {name!r} has no stand-in in visionpe (there are {', '.join(OPS)}). {HOW_TO_COMPILE}"
            )

        return missing


def _probe() -> Exception | None:
    """Import the compiled extension and run one operator of it; return what went wrong."""
    try:
        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [5.0, 5.0, 9.0, 9.0]])
        kept = importlib.import_module(NAME).nms(boxes, torch.tensor([0.5, 0.9, 0.7]), iou_threshold=0.5, offset=0)
        if kept.tolist() != [1, 2]:
            return RuntimeError(f"its nms keeps boxes {kept.tolist()}, not [1, 2]")
    except Exception as error:
        return error
    return None


def install() -> bool:
    """Put the stand-in where mmcv looks for its compiled extension, unless a compiled one works.

    Call it before anything imports ``mmcv.ops``: mmdet and mmseg settle for placeholders when that import fails.

    Returns:
        Whether the stand-in is in use.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.

    Warns:
        UserWarning: If there is a compiled extension but it does not work with this torch, or if ``mmcv.ops`` has
            already failed to import in this process.
    """
    if isinstance(sys.modules.get(NAME), StandIn):
        return True
    if find_spec("mmcv") is None:
        raise ModuleNotFoundError(
            "visionpe.detection needs OpenMMLab: pip install 'visionpe[detection]' (nothing is compiled)", name="mmcv"
        )
    if NAME in sys.modules or find_spec(NAME) is not None:
        problem = _probe()
        if problem is None:
            return False
        warnings.warn(
            f"mmcv's compiled extension does not work with torch {torch.__version__} "
            f"({type(problem).__name__}: {problem}); visionpe's stand-in takes its place. {HOW_TO_COMPILE}",
            stacklevel=2,
        )
    # mmcv.ops loads ext_loader first of all, and drops out of sys.modules when it fails.
    if "mmcv.utils.ext_loader" in sys.modules and "mmcv.ops" not in sys.modules:
        warnings.warn(
            "mmcv.ops was imported before visionpe.detection and failed, so parts of mmdet or mmseg already loaded "
            "have no operators: import visionpe.detection first, or name it in the config's custom_imports",
            stacklevel=2,
        )
    sys.modules[NAME] = StandIn()
    importlib.import_module("mmcv")._ext = sys.modules[NAME]  # type: ignore[attr-defined]
    return True
