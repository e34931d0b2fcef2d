"""Libraries that people put around a vision transformer: training, explaining, counting, quantising."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import torch
from checks import build, check, images, models, same
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@check("torchao", "`quantize_` to int8 weights")
@torch.no_grad()
def torchao() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    for name, model in models():
        quantised = copy.deepcopy(model)
        quantize_(quantised, Int8WeightOnlyConfig())
        same(name, quantised(images()), model(images()), 0.1)


@check("lightning", "`Trainer.fit` and `test`, `ModelSummary`, a checkpoint that loads")
def lightning() -> None:
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.example_input_array = build("none_vit_ti", "rope_mixed+rpb"), images()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def test_step(self, batch: Any, index: int) -> None:
            self.log("loss", self.training_step(batch, index))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

    data = DataLoader(TensorDataset(images(4), torch.arange(4) % 3), batch_size=2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(max_steps=2, accelerator="cpu", default_root_dir=folder, logger=False, precision="bf16-mixed")
        module = Module()
        trainer.fit(module, data)
        trainer.test(module, data, verbose=False)
        trainer.save_checkpoint(f"{folder}/last.ckpt")
        again = Module.load_from_checkpoint(f"{folder}/last.ckpt")
    for (name, one), other in zip(module.state_dict().items(), again.state_dict().values()):
        same(name, one, other, 0)


@check("captum", "`IntegratedGradients`, `LayerGradCam`, `LayerActivation`")
def captum() -> None:
    from captum.attr import IntegratedGradients, LayerActivation, LayerGradCam

    for name, model in models():
        given = IntegratedGradients(model).attribute(images(), target=1, n_steps=4)
        assert given.abs().sum() > 0, name
        layer = model.blocks[-1].norm1 if hasattr(model, "blocks") else model.stages[-1].blocks[-1].norm1
        assert LayerActivation(model, layer).attribute(images()).shape[0] == 2, name
        assert LayerGradCam(model, layer).attribute(images(), 1).shape[0] == 2, name


@check("grad-cam", "`GradCAM`, `EigenCAM` at the last norm")
def grad_cam() -> None:
    from pytorch_grad_cam import EigenCAM, GradCAM

    def spatial(x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 3:  # tokens, the class token ahead of a square map
            side = int(x.shape[1] ** 0.5)
            x = x[:, x.shape[1] - side * side :].unflatten(1, (side, side))
        return x.permute(0, 3, 1, 2)

    for name, model in models():
        layer = model.blocks[-1].norm1 if hasattr(model, "blocks") else model.stages[-1].blocks[-1].norm1
        for method in (GradCAM, EigenCAM):
            with method(model=model, target_layers=[layer], reshape_transform=spatial) as cam:
                assert cam(input_tensor=images(), targets=None).shape == (2, 32, 32), name


@check("torchinfo", "`summary`: every parameter counted once")
def torchinfo() -> None:
    from torchinfo import summary

    for name, model in models():
        found = summary(model, input_data=images(), verbose=0).total_params
        wanted = sum(p.numel() for p in model.parameters())
        assert found == wanted, f"{name}: {found} for {wanted}"


@check("fvcore", "`FlopCountAnalysis` and `parameter_count`")
def fvcore() -> None:
    import logging

    from fvcore.nn import FlopCountAnalysis, parameter_count

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    for name, model in models():
        assert FlopCountAnalysis(model, images()).total() > 0, name
        assert parameter_count(model)[""] == sum(p.numel() for p in model.parameters()), name
