"""PyTorch itself: graphs, exports, quantisation, sharding."""

from __future__ import annotations

import copy
import io
import os
import tempfile
from pathlib import Path

import torch
from checks import build, check, images, models, same
from torch import nn


@check("torch", "`torch.export` with a free batch")
@torch.no_grad()
def export() -> str:
    names = []
    for name, model in models():
        program = torch.export.export(model, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        same(name, program.module()(images(3)), model(images(3)))
        names.append(name)
    return f"{len(names)} models"


@check("torch", "`torch.compile` of the model and of its blocks, one graph for all blocks of a kind")
@torch.no_grad()
def compile_blocks() -> None:
    from torch._dynamo.testing import CompileCounter

    for encoding in ("rope_mixed", "rpb", "cpb"):
        model, counter = build("none_vit_ti", encoding, depth=4).eval(), CompileCounter()
        wanted = model(images())
        torch._dynamo.reset()
        for block in model.blocks:
            block.compile(backend=counter)
        same(encoding, model(images()), wanted)
        assert counter.frame_count == 1, f"{encoding}: {counter.frame_count} graphs"
    model = build("swin_t", "rpb").eval()
    torch._dynamo.reset()
    same("swin_t", torch.compile(model, backend="aot_eager")(images()), model(images()))


@check("torch", "`torch.jit.trace`")
@torch.no_grad()
def trace() -> None:
    for name, model in models():
        same(name, torch.jit.trace(model, images())(images(3)), model(images(3)))


@check("torch", "`torch.fx.symbolic_trace`, a block or stage as one node; refused for ViTDet in one sentence")
@torch.no_grad()
def fx() -> None:
    for name, model in models():
        try:
            same(name, torch.fx.symbolic_trace(model)(images()), model(images()))
        except NotImplementedError:
            assert name.startswith("vitdet"), name


@check("torch", "`torch.func`: `functional_call`, `vmap`, gradients of each sample")
def func() -> None:
    for name, model in models():
        state = {key: value.detach() for key, value in model.named_parameters()}

        def loss(weights: dict, x: torch.Tensor, model: nn.Module = model) -> torch.Tensor:
            return torch.func.functional_call(model, weights, (x[None],)).square().sum()

        grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(state, images())
        model.zero_grad()
        model(images()).square().sum().backward()
        for key, parameter in model.named_parameters():
            same(f"{name} {key}", grads[key].sum(0), parameter.grad, 1e-3)


@check("torch", "`quantize_dynamic` to int8")
@torch.no_grad()
def quantize() -> None:
    for name, model in models():
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
        same(name, quantised(images()), model(images()), 0.1)


@check("torch", "`fully_shard` (FSDP2) of every block with mixed precision, one step, one process (gloo)")
def fully_shard() -> str:
    from torch import distributed
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from torch.distributed.fsdp import fully_shard as shard

    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        store = distributed.FileStore(str(Path(folder) / "store"), 1)
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            mesh = distributed.init_device_mesh("cpu", (1,))
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
            for name, model in models():
                model.train()
                mixed = not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
                options = {"mesh": mesh, "mp_policy": policy if mixed else MixedPrecisionPolicy()}
                for module in list(model.modules()):
                    if type(module).__name__.endswith("Block"):
                        shard(module, **options)
                shard(model, **options)
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
                model(images()).float().square().mean().backward()
                assert all(p.grad is not None for p in model.parameters()), f"{name}: parameters without gradient"
                optimizer.step()
        finally:
            distributed.destroy_process_group()
    return "CvT in one precision, which batch norms want"


@check("onnx", "`torch.onnx.export(dynamo=True)` with a free batch, run by onnxruntime")
@torch.no_grad()
def onnx() -> None:
    import onnxruntime

    for name, model in models():
        program = torch.onnx.export(
            model, (images(),), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        buffer = io.BytesIO()
        program.save(buffer)
        session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: images(3).numpy()})[0]
        same(name, torch.from_numpy(found), model(images(3)), 1e-4)
