"""Hugging Face: transformers' wrappers of timm, accelerate, peft; timm's own way to the hub."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import timm
import torch
from checks import MODELS, build, check, images, models, same
from torch import nn


def arguments(family: str, encoding: str) -> dict[str, Any]:
    return {"pos_encoding": encoding, **MODELS[family]}


@check("transformers", "`TimmWrapperForImageClassification`: saved, loaded, equal")
@torch.no_grad()
def wrapper() -> None:
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    for family, encoding in (("none_vit_ti", "rope_mixed"), ("swin_t", "rpb"), ("cswin_t", "lepe")):
        config = TimmWrapperConfig(architecture=family, model_args=arguments(family, encoding), num_labels=3)
        model = TimmWrapperForImageClassification(config).eval()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            again = TimmWrapperForImageClassification.from_pretrained(folder).eval()
        same(family, again(images()).logits, model(images()).logits, 0)


@check("transformers", "`Trainer`: two steps, and a checkpoint that loads")
def trainer() -> None:
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, Trainer, TrainingArguments

    config = TimmWrapperConfig(
        architecture="none_vit_ti", model_args=arguments("none_vit_ti", "rope_mixed"), num_labels=3
    )
    data = [{"pixel_values": image, "labels": i % 3} for i, image in enumerate(images(4))]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, max_steps=2, per_device_train_batch_size=2, report_to=[], save_steps=2, use_cpu=True,
            disable_tqdm=True,
        )  # fmt: skip
        model = TimmWrapperForImageClassification(config)
        Trainer(model=model, args=settings, train_dataset=data).train()
        again = TimmWrapperForImageClassification.from_pretrained(f"{folder}/checkpoint-2")
    for (name, one), other in zip(model.state_dict().items(), again.state_dict().values()):
        same(name, one.cpu(), other, 0)


@check("transformers", "`TimmBackbone`: feature maps")
@torch.no_grad()
def backbone() -> None:
    from transformers import TimmBackbone, TimmBackboneConfig

    for family in ("none_vit_ti", "swin_t"):
        config = TimmBackboneConfig(
            backbone=family, out_indices=(0, 1), use_pretrained_backbone=False, **MODELS[family]
        )
        maps = TimmBackbone(config).eval()(images()).feature_maps
        assert len(maps) == 2, family


@check("timm", "`save_for_hf` and back through `local-dir:`")
@torch.no_grad()
def hub() -> None:
    for name, model in models():
        with tempfile.TemporaryDirectory() as folder:
            timm.models.save_for_hf(model, folder, model_args=model._model_args)
            again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        same(name, again(images()), model(images()), 0)


@check("accelerate", "`cpu_offload` of every layer, equal; `Accelerator.prepare` and one step")
def offload() -> None:
    from accelerate import Accelerator, cpu_offload

    for name, model in models():
        with torch.no_grad():
            wanted = model(images())
            same(name, cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))(images()), wanted)
    accelerator, model = Accelerator(cpu=True), build("swin_t", "rpb")
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    accelerator.backward(model(images()).square().mean())
    optimizer.step()


@check("peft", "LoRA on all linear layers: gradients everywhere, merged outputs equal")
def lora() -> None:
    from peft import LoraConfig, get_peft_model

    for name, model in models():
        linear = [key for key, module in model.named_modules() if type(module) is nn.Linear and "head" not in key]
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules=linear, init_lora_weights=False))
        tuned(images()).square().sum().backward()
        idle = [key for key, p in tuned.named_parameters() if p.requires_grad and p.grad is None]
        assert not idle, f"{name}: no gradient in {idle[:3]}"
        with torch.no_grad():
            wanted = tuned(images())
            same(name, tuned.merge_and_unload()(images()), wanted, 1e-4)
