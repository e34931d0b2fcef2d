"""What shards, copies and parametrises models: FSDP in both forms, ``DataParallel``, ``torch.nn.utils.parametrize``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.utils import parametrize

from visionpe import Grid
from visionpe.backbones.shared.block import EncodedBlock
from visionpe.encodings.rotary.augment import CoordinateAugmentation

# A world of one; and a stage may end in a view, which nobody changes in place.
pytestmark = [
    pytest.mark.filterwarnings("ignore:FSDP is switching to use"),
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module"),
]
PLAIN = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 3}
STAGES = {"img_size": 32, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "num_classes": 3}
LINES = STAGES | {"embed_dim": (16, 16), "mlp_ratio": 2.0, "decomposed": (True, False), "decay_range": 4.0}
FAMILIES = {
    "vit_ti": PLAIN,
    "vitdet_b": PLAIN | {"window_size": 3},
    **dict.fromkeys(("swin_t", "cswin_t", "crossformer_t", "cpvt_v2_s", "mit_b0", "cvt_13"), STAGES),
    "rmt_t": LINES,
}
WITH_BATCH_NORMS = ("rmt_t", "cvt_13")  # which want one dtype


def build(family: str, spec: Any, **more: Any) -> Any:
    return timm.create_model(f"none_{family}", pos_encoding=spec, **{**FAMILIES[family], **more}).train()


@pytest.fixture
def process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def shard_blocks(model: nn.Module, policy: MixedPrecisionPolicy) -> None:
    for name, module in model.named_modules():
        if name.rpartition(".")[0].endswith("blocks"):
            fully_shard(module, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WITH_BATCH_NORMS])
def test_mixed_precision_by_block(family: str) -> None:
    model = build(family, "rope_mixed+ape")
    shard_blocks(model, MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))
    model(torch.randn(2, 3, 32, 40)).float().square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.usefixtures("process")
def test_blocks_get_positions_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers share the draw of a pass, and coordinates keep the digits that bfloat16 has not."""
    spec = {"name": "rope_norm", "shift_coords": 0.5}
    model, seen = build("vit_ti", spec, img_size=(8, 8 * 300), patch_drop_rate=0.1), []
    drawn = CoordinateAugmentation.draw

    def spy(self: Any, grid: Grid, *args: Any) -> torch.Tensor:
        seen.append((grid, drawn(self, grid, *args)))
        return seen[-1][1]

    monkeypatch.setattr(CoordinateAugmentation, "draw", spy)
    shard_blocks(model, MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    model(torch.randn(1, 3, 8, 8 * 300))
    (grid, first), (_, second) = seen
    assert torch.equal(first, second)
    assert grid.coords is not None
    assert len(grid.coords[0].unique(dim=0)) == grid.num_spatial == 270


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("family", ["swin_t", "cswin_t", "crossformer_t", "cpvt_v2_s", "mit_b0", "cvt_13"])
@pytest.mark.parametrize("spec", ["ape", "dropped(fourier)", "lape", "rpb+cpe"])
def test_stages_that_are_sharded(family: str, spec: str) -> None:
    model, x = build(family, spec), torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    wanted = model(x)
    for stage in model.stages:
        fully_shard(stage)
    fully_shard(model)
    torch.manual_seed(0)
    found = model(x)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("spec", ["decomposed", "dropped(ape)", "cropped(lape(ape))", "dropped(dropped(rope_mixed))"])
def test_flat_parameters(spec: str, original: bool) -> None:
    model, x = build("vit_ti", spec), torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    wanted = model(x)
    sharded: Any = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=original)
    torch.manual_seed(0)
    found = sharded(x)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_flat_parameters_of_compiled_blocks(apart: bool, original: bool) -> None:
    """Each block reads its own table, wherever tensors are put, and all share a graph where these are parameters."""
    model, x, counter = build("vit_ti", "rope_mixed", depth=3), torch.randn(2, 3, 32, 32), CompileCounter()
    torch.manual_seed(0)
    wanted = model(x)
    torch._dynamo.reset()
    for block in model.blocks:
        block.compile(backend=counter)
    options: dict[str, Any] = {"device_id": torch.device("cpu"), "use_orig_params": original}
    if apart:
        options["auto_wrap_policy"] = ModuleWrapPolicy({EncodedBlock})
    torch.manual_seed(0)
    torch.testing.assert_close(FullyShardedDataParallel(model, **options)(x), wanted)
    assert not original or counter.frame_count == 1


def replica(model: nn.Module) -> Any:
    """What ``DataParallel`` makes of a model for one of its devices; the model itself is of no use afterwards."""
    modules: list[Any] = list(model.modules())
    copies = {module: module._replicate_for_data_parallel() for module in modules}
    for module, copied in copies.items():
        for name, child in module._modules.items():
            setattr(copied, name, copies[child])
        for name, parameter in module._parameters.items():
            setattr(copied, name, None if parameter is None else parameter * 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    return copies[model]


REPLICATED = ("ape", "dropped(ape)", "dropped(lape)", "randomised(rope_mixed)", "dropped(dropped(cpe))", "cpb", "lepe")
COPIED = [(family, spec) for family in ("vit_ti", "cswin_t", "crossformer_t") for spec in REPLICATED]
SAME_TOKENS = ("lepe", "randomised(rope_mixed)")  # what they need; keys are fewer than queries here
COPIED += [(name, spec) for name in ("cpvt_v2_s", "mit_b0", "cvt_13") for spec in REPLICATED if spec not in SAME_TOKENS]


@pytest.mark.parametrize(("family", "spec"), COPIED)
def test_replicas(family: str, spec: str) -> None:
    model, x = build(family, spec), torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    wanted = model(x)
    torch.manual_seed(0)
    torch.testing.assert_close(replica(model)(x), wanted)


class Half(nn.Module):
    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return t / 2


@pytest.mark.parametrize("spec", ["rpb", "decomposed", "crse", "dropped(ape)", "dropped(lape)", "rope_mixed", "irpe"])
def test_parametrised(spec: str) -> None:
    model, x = build("vit_ti", spec).eval(), torch.randn(2, 3, 32, 32)
    halved = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in halved.named_parameters():
            if "pos_encoding" in name:
                parameter /= 2
    for name, module in list(model.named_modules()):
        for key, _ in list(module.named_parameters(recurse=False)) if "pos_encoding" in name else ():
            parametrize.register_parametrization(module, key, Half())
    torch.testing.assert_close(model(x), halved(x))
    model.train()(x).sum().backward()


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("family", ["vit_ti", "swin_t"])
def test_parameters_that_stay_float32_are_sharded_apart(family: str) -> None:
    """As documented: FSDP wants one dtype a group, and frequencies keep float32 beside bfloat16."""
    model, x = build(family, "rope_mixed").bfloat16(), torch.randn(2, 3, 32, 32).bfloat16()
    whole = copy.deepcopy(model)
    torch.manual_seed(0)
    wanted = whole(x)
    wanted.sum().backward()
    for module in model.modules():
        if any(p.dtype == torch.float32 for p in module.parameters(recurse=False)):
            fully_shard(module)
    shard_blocks(model, MixedPrecisionPolicy())
    torch.manual_seed(0)
    found = model(x)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    gradients = {name: parameter.grad for name, parameter in whole.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.full_tensor(), gradients[name])
