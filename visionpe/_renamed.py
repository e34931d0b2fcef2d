"""Modules and names that moved: the old ones still work, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Below visionpe: where a module stood -> where it stands.
MODULES = {
    "adapting": "policy.grammar",
    "axial": "attention.axial",
    "backbones.block": "backbones.shared.block",
    "backbones.cswin_layers": "backbones.cswin.layers",
    "backbones.cswin_models": "backbones.cswin.cswin_models",
    "backbones.cswin_weights": "backbones.cswin.weights",
    "backbones.level": "backbones.shared.voxel_level",
    "backbones.loading": "backbones.shared.loading",
    "backbones.patches": "backbones.shared.patches",
    "backbones.pyramid": "backbones.shared.pyramid",
    "backbones.registering": "backbones.shared.registering",
    "backbones.stage_encoding": "backbones.shared.stage_encoding",
    "backbones.swin3d.checks": "backbones.shared.voxel_checks",
    "backbones.swin3d.level": "backbones.shared.voxel_level",
    "backbones.swin3d_checks": "backbones.shared.voxel_checks",
    "backbones.swin3d_layers": "backbones.swin3d.layers",
    "backbones.swin3d_models": "backbones.swin3d.swin3d_models",
    "backbones.swin3d_unet": "backbones.swin3d.unet",
    "backbones.swin3d_weights": "backbones.swin3d.weights",
    "backbones.swin_models": "backbones.swin.swin_models",
    "backbones.swin_stage": "backbones.swin.stage",
    "backbones.swin_weights": "backbones.swin.weights",
    "backbones.vit_models": "backbones.vit.vit_models",
    "backbones.vit_weights": "backbones.vit.weights",
    "backbones.vitdet_blocks": "backbones.vitdet.blocks",
    "backbones.vitdet_models": "backbones.vitdet.vitdet_models",
    "backbones.vitdet_weights": "backbones.vitdet.weights",
    "backbones.windows": "backbones.shared.windows",
    "bias": "attention.bias",
    "buckets": "attention.buckets",
    "choices": "checks",
    "detection.backbone": "detection.models.features",
    "detection.backbone_weights": "detection.models.features_weights",
    "detection.checkpoint": "detection.running.checkpoint",
    "detection.classifier": "detection.models.classifier",
    "detection.clouds.motorcycle": "data.motorcycle",
    "detection.clouds.room_layout": "data.rooms.layout",
    "detection.clouds.room_materials": "data.rooms.materials",
    "detection.clouds.room_paint": "data.rooms.paint",
    "detection.clouds.room_scenes": "data.rooms.scenes",
    "detection.data_check": "detection.running.data_check",
    "detection.digits": "detection.data.digits",
    "detection.drawing": "detection.predicting.drawing",
    "detection.errors": "detection.running.errors",
    "detection.export": "detection.running.export_hook",
    "detection.extractor": "detection.models.extractor",
    "detection.initialising": "detection.models.init_cfg",
    "detection.metrics": "detection.running.metrics",
    "detection.neck_check": "detection.models.neck_check",
    "detection.ops": "detection.operators.extension",
    "detection.ops_attention": "detection.operators.attention",
    "detection.ops_boxes": "detection.operators.boxes",
    "detection.ops_deform": "detection.operators.deform",
    "detection.ops_rois": "detection.operators.rois",
    "detection.optim": "detection.running.optimizers",
    "detection.predictor": "detection.predicting.predictor",
    "detection.pyramid": "detection.models.simple_pyramid",
    "detection.quiet": "detection.running.quiet",
    "detection.resume": "detection.running.resume",
    "detection.run_modes": "detection.running.modes",
    "detection.runner": "detection.running.runner",
    "detection.scene_drawing": "data.digit_scenes.drawing",
    "detection.scenes": "data.digit_scenes.writing",
    "digits": "data.digits",
    "encodings.abswin": "encodings.absolute.abswin",
    "encodings.alibi": "encodings.bias.alibi",
    "encodings.ape": "encodings.absolute.ape",
    "encodings.attention_bias": "encodings.bias.attention_bias",
    "encodings.comrope": "encodings.rotary.comrope",
    "encodings.cpb": "encodings.bias.cpb",
    "encodings.cpe": "encodings.convolution.cpe",
    "encodings.crse": "encodings.bias.crse",
    "encodings.decomposed": "encodings.bias.decomposed",
    "encodings.dpb": "encodings.bias.dpb",
    "encodings.fire": "encodings.bias.fire",
    "encodings.fourier": "encodings.absolute.fourier",
    "encodings.irpe": "encodings.bias.irpe",
    "encodings.kerple": "encodings.bias.kerple",
    "encodings.lape": "encodings.absolute.lape",
    "encodings.lepe": "encodings.convolution.lepe",
    "encodings.lookhere": "encodings.bias.lookhere",
    "encodings.manhattan": "encodings.bias.manhattan",
    "encodings.rope_axial": "encodings.rotary.rope_axial",
    "encodings.rope_mixed": "encodings.rotary.rope_mixed",
    "encodings.rope_norm": "encodings.rotary.rope_norm",
    "encodings.rpb": "encodings.bias.rpb",
    "encodings.seqpe": "encodings.absolute.seqpe",
    "encodings.sincos": "encodings.absolute.sincos",
    "flex": "attention.flex",
    "kernels": "attention.kernels",
    "logits": "attention.logits",
    "offset": "encodings.bias.offset",
    "resize": "policy.functions",
    "resize.frequencies": "policy.functions.frequencies",
    "resize.logits": "policy.functions.logits",
    "resize.maps": "policy.functions.convolutions",
    "resize.matrices": "policy.functions.matrices",
    "resize.named": "policy.functions.terms",
    "resize.offsets": "policy.functions.offsets",
    "resize.patches": "policy.functions.patches",
    "resize.positions": "policy.functions.positions",
    "resize.spectrum": "policy.functions.spectrum",
    "resize.tables": "policy.functions.tables",
    "resize.windows": "policy.functions.windows",
    "rotary": "encodings.rotary.base",
    "sequence": "encodings.absolute.digit_transformer",
    "signal_bias": "attention.signals.bias",
    "signal_picks": "attention.signals.picks",
    "signal_rows": "attention.signals.rows",
    "signals": "attention.signals.attention",
    "wrapper": "encodings.wrappers.base",
    "wrappers": "encodings.wrappers",
    "wrappers.cropped": "encodings.wrappers.cropped",
    "wrappers.dropped": "encodings.wrappers.dropped",
    "wrappers.moved": "encodings.wrappers.moved",
    "wrappers.randomised": "encodings.wrappers.randomised",
}
# Names that changed inside a module that moved: (old module, old name) -> (new module, new name).
NAMES = {
    ("adapting", "Adapts"): ("policy.holder", "HasPolicy"),
    ("adapting", "adaptable"): ("policy.holder", "policy_holders"),
    ("adapting", "Choice"): ("policy.grammar", "PolicyTerm"),
    ("adapting", "join"): ("policy.grammar", "format_policy"),
    ("resize", "between"): ("policy.functions", "effective_length"),
    ("resize.positions", "between"): ("policy.functions.positions", "effective_length"),
    ("resize", "is_trained"): ("policy.functions", "is_trained_size"),
    ("resize.positions", "is_trained"): ("policy.functions.positions", "is_trained_size"),
    ("resize.frequencies", "adapt"): ("policy.functions.frequencies", "adapt_frequencies"),
    ("resize.named", "named"): ("policy.functions.terms", "as_term"),
    ("backbones.block", "Cut"): ("backbones.shared.block", "Partition"),
    ("backbones.windows", "Whole"): ("backbones.shared.windows", "WholeMap"),
    ("backbones.windows", "grown"): ("backbones.shared.windows", "grown_window"),
    ("backbones.stage_encoding", "Inside"): ("backbones.shared.stage_encoding", "WindowKind"),
    ("backbones.vit_weights", "take_policy"): ("backbones.vit.weights", "adopt_policy"),
    ("detection.runner", "existing"): ("detection.running.runner", "check_checkpoint"),
    ("detection.resume", "ResumableRandomnessHook"): ("detection.running.randomness", "ResumableRandomnessHook"),
    ("detection.runner", "inner"): ("detection.running.runner", "unwrap_model"),
    ("detection.runner", "forget_weights"): ("detection.running.runner", "drop_pretrained"),
    ("detection.extractor", "granularity"): ("detection.models.extractor", "size_divisor"),
    ("detection.initialising", "KeepsWeights"): ("detection.models.init_cfg", "KeepsLoadedWeights"),
    ("detection.optim", "undecayed"): ("detection.running.optimizers", "no_decay_names"),
}
ROOT = "visionpe."


class _Moved(Loader):
    """Makes a module that hands out what stands elsewhere now."""

    def __init__(self, old: str) -> None:
        self.old = old

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old, new = self.old, MODULES[self.old]
        warnings.warn(f"{ROOT}{old} has moved to {ROOT}{new}", DeprecationWarning, stacklevel=2)
        target = import_module(ROOT + new)
        module.__doc__ = target.__doc__

        def find(name: str) -> Any:
            if f"{old}.{name}" in MODULES:
                return import_module(f"{ROOT}{old}.{name}")
            place, now = NAMES.get((old, name), (new, name))
            return getattr(import_module(ROOT + place), now)

        module.__getattr__ = find  # type: ignore[method-assign]


class _Finder(MetaPathFinder):
    """Finds modules by their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        old = fullname.removeprefix(ROOT)
        if not fullname.startswith(ROOT) or old not in MODULES:
            return None
        holds_modules = any(name.startswith(f"{old}.") for name in MODULES)
        return ModuleSpec(fullname, _Moved(old), is_package=holds_modules)


def old_modules(package: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package: what once stood in it, also as an attribute (``visionpe.encodings.rpb``)."""

    def find(name: str) -> Any:
        if f"{package}.{name}".removeprefix(ROOT) in MODULES:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def install() -> None:
    """Make the old names importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
