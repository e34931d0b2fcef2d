"""Images of several sizes in one batch: each as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from conftest import ENCODINGS, randomize, tiny_vit
from timm.data.naflex_dataset import NaFlexCollator
from timm.data.naflex_transforms import patchify_image
from torch import Tensor, nn

import visionpe
from visionpe.attention.documents import attend_documents, document_blocks
from visionpe.mixed import Part, mixed_grid

SIZES = [(24, 24), (16, 40), (8, 8), (24, 24), (36, 12)]
BATCHINGS = ["pad", "pack"]


def pictures(sizes: list[tuple[int, int]] = SIZES, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=generator, dtype=dtype) for size in sizes]


def alone(model: nn.Module, images: list[Tensor]) -> Tensor:
    return torch.cat([model(image[None]) for image in images])


@pytest.mark.parametrize("name", ENCODINGS)
@torch.no_grad()
def test_every_encoding_and_policy(name: str) -> None:
    model, images = tiny_vit(name), pictures()
    for policy in ["default", *visionpe.policies(model)]:
        visionpe.set_policy(model, policy)
        expected = alone(model, images)
        assert len(expected.unique(dim=0)) == len(images)
        for batching in BATCHINGS:
            torch.testing.assert_close(model(images, batching=batching), expected, atol=1e-5, rtol=1e-5, msg=policy)


@pytest.mark.parametrize(
    "options",
    [
        {"class_token": False, "global_pool": "avg"},
        {"reg_tokens": 2},
        {"global_pool": "map", "class_token": False},
        {"global_pool": "max", "reg_tokens": 1},
        {"talking_heads": True},
        {"qk_norm": True, "dynamic_img_pad": True},
    ],
    ids=str,
)
@torch.no_grad()
def test_every_pooling(options: dict[str, Any]) -> None:
    model = tiny_vit("rope_mixed", **options)
    images = pictures([*SIZES, (13, 22)] if "dynamic_img_pad" in options else SIZES)
    for batching in BATCHINGS:
        torch.testing.assert_close(model(images, batching=batching), alone(model, images), atol=1e-5, rtol=1e-5)
    assert model.forward_head(model.forward_features(images), pre_logits=True).shape == (
        len(images),
        model.num_features,
    )


@pytest.mark.parametrize("batching", BATCHINGS)
def test_gradients(batching: str) -> None:
    model, images = tiny_vit("rope_mixed+cpe+fire").double(), pictures(dtype=torch.float64)
    for checkpointed in (False, True):
        model.set_grad_checkpointing(checkpointed)
        grads = []
        for logits in (model(images, batching=batching), alone(model, images)):
            model.zero_grad()
            logits.square().sum().backward()
            grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        assert grads[0].keys() == grads[1].keys()
        for name, grad in grads[1].items():
            torch.testing.assert_close(grads[0][name], grad, atol=1e-9, rtol=1e-7, msg=name)


@torch.no_grad()
def test_features() -> None:
    model, images = tiny_vit("rope_mixed", reg_tokens=1), pictures()
    final, maps = model.forward_intermediates(images, norm=True, return_prefix_tokens=True)
    for index, image in enumerate(images):
        own_final, own_maps = model.forward_intermediates(image[None], norm=True, return_prefix_tokens=True)
        torch.testing.assert_close(final[index], own_final[0], atol=1e-5, rtol=1e-5)
        for (every, prefix), (own, own_prefix) in zip(maps, own_maps):
            assert every[index].shape == (32, image.shape[1] // 4, image.shape[2] // 4)
            torch.testing.assert_close(every[index], own[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(prefix[index], own_prefix[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pos_encoding", ["decomposed+ape", "rope_mixed+rpb"])
@torch.no_grad()
def test_windows(pos_encoding: str) -> None:
    model = timm.create_model(
        "none_vitdet_b", pos_encoding=pos_encoding, img_size=32, patch_size=4, embed_dim=32, depth=4, num_heads=2,
        window_size=3, num_classes=5, pretrain_img_size=24,
    )  # fmt: skip
    model, images = randomize(model), pictures([*SIZES, (13, 22)])
    torch.testing.assert_close(model(images), alone(model, images), atol=1e-5, rtol=1e-5)
    final, maps = model.forward_intermediates(images)
    own_final, own_maps = model.forward_intermediates(images[1][None])
    torch.testing.assert_close(final[1], own_final[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps[2][1], own_maps[2][0], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"batching='pack'.*size by size"):
        model(images, batching="pack")


def naflex(images: list[Tensor], keep: float = 1.0) -> dict[str, Tensor]:
    """As timm's loader collates them."""
    samples = []
    for image in images:
        patches, coord, valid = patchify_image(image, (4, 4))
        kept = torch.randperm(len(patches))[: max(1, int(keep * len(patches)))]
        kept = kept if keep < 1 else torch.arange(len(patches))
        samples.append(({"patches": patches[kept], "patch_coord": coord[kept], "patch_valid": valid[kept]}, 0))
    return NaFlexCollator()(samples)[0]


@pytest.mark.parametrize("batching", BATCHINGS)
@torch.no_grad()
def test_patches_of_naflex(batching: str) -> None:
    model, images = tiny_vit("rope_mixed+ape+rpb"), pictures()
    given, expected = naflex(images), alone(model, images)
    torch.testing.assert_close(model(given, batching=batching), expected, atol=1e-5, rtol=1e-5)
    patches = given.pop("patches")
    given.pop("seq_len", None)
    torch.testing.assert_close(model(patches, **given, batching=batching), expected, atol=1e-5, rtol=1e-5)
    unflattened = patches.unflatten(2, (4, 4, 3))
    torch.testing.assert_close(model(unflattened, **given, batching=batching), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batching", BATCHINGS)
@torch.no_grad()
def test_missing_patches(batching: str) -> None:
    """What is not there is as what a patch dropout took away."""
    model = tiny_vit("rope_mixed+alibi")
    given = naflex(pictures(), keep=0.6)
    logits = model(given, batching=batching)
    for index in range(len(logits)):
        own = {key: value[index : index + 1] for key, value in given.items() if isinstance(value, Tensor)}
        valid = own["patch_valid"][0]
        coords = own["patch_coord"][0, valid]
        torch.testing.assert_close(model(own), logits[index : index + 1], atol=1e-5, rtol=1e-5)
        x = model.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1) @ own["patches"][0, valid].T
        tokens = (x.T + model.patch_embed.proj.bias)[None]
        grid = visionpe.Grid(tuple((coords.amax(0) + 1).tolist()), prefix=1, coords=coords)
        tokens = torch.cat((model.cls_token, tokens), dim=1)
        for block in range(2):
            tokens = model._block(block, tokens, grid, None)
        torch.testing.assert_close(model.forward_head(model.norm(tokens))[0], logits[index], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"patch_valid: patches are missing.*'cpe'"):
        tiny_vit("cpe")(given)


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("batching", BATCHINGS)
@torch.no_grad()
def test_stochastic_depth_of_each_image(batching: str) -> None:
    """An image is dropped or kept as a whole, and not all of those that are packed with it."""
    model = tiny_vit("none", drop_path_rate=0.5, constant_drop_path=True).train()
    block = model.blocks[0]
    block.ls2 = Nothing()  # attention alone
    x, grid = model._tokens(pictures([(24, 24), (16, 40)] * 16), batching=batching)
    moved = []
    for before, after in zip(grid.split(x), grid.split(block(x, model.pos_encoding, grid))):
        changed = (before != after).any(dim=2)
        assert torch.equal(changed.all(dim=1), changed.any(dim=1))
        moved += changed.all(dim=1).tolist()
    assert 4 <= sum(moved) <= 28


@torch.no_grad()
def test_documents_are_segments() -> None:
    parts = [Part(visionpe.Grid((2, 3)), (0, 2)), Part(visionpe.Grid((5, 1)), (1,))]
    grid = mixed_grid(parts, packed=True)
    q, k, v = torch.randn(3, 1, 2, 17, 8)
    out = attend_documents(q, k, v, document_blocks(grid.image_of_token(q.device)))
    for start, stop in ((0, 6), (6, 12), (12, 17)):
        own = visionpe.attend(q[:, :, start:stop], k[:, :, start:stop], v[:, :, start:stop])
        torch.testing.assert_close(out[:, :, start:stop], own, atol=1e-5, rtol=1e-5)


def test_packed_by_waste() -> None:
    even = [Part(visionpe.Grid((4, 4)), (0, 1, 2)), Part(visionpe.Grid((5, 3)), (3,))]
    uneven = [Part(visionpe.Grid((4, 4)), (0,)), Part(visionpe.Grid((3, 3)), (1,))]
    assert [mixed_grid(parts).packed for parts in (even, uneven)] == [False, True]
    assert mixed_grid(uneven, packed=False).valid(torch.device("cpu")).sum(1).tolist() == [16, 9]


@torch.no_grad()
def test_autocast() -> None:
    model, images = tiny_vit("rope_mixed"), pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for batching in BATCHINGS:
            logits = model(images, batching=batching)
            torch.testing.assert_close(logits, alone(model, images), atol=0.1, rtol=0.1)


def test_bad_input() -> None:
    model, (image, *_) = tiny_vit("rope_mixed"), pictures()
    given = naflex([image])
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "an empty list"),
        ([image, image[None]], {}, r"images\[1\]: shape"),
        ([image, image.double()], {}, r"images\[1\]: .*float64"),
        ([image, image[:1]], {}, r"images\[1\]: shape \(1,"),
        ([image[:, :9]], {}, "no multiple of patch_size"),
        ([image], {"batching": "packed"}, "batching='packed'"),
        ([image], {"attn_mask": torch.ones(1, 1)}, "attn_mask: images of several sizes"),
        ({"patches": given["patches"]}, {}, "patch_coord"),
        ({**given, "patches": given["patches"][..., 1:]}, {}, "patches: .*allowed: .*48"),
        ({**given, "patch_coord": given["patch_coord"][:, 1:]}, {}, "patch_coord: "),
        ({**given, "patch_coord": given["patch_coord"] * 0}, {}, "two patches"),
        ({**given, "patch_coord": given["patch_coord"] - 1}, {}, "negative"),
        ({**given, "patch_valid": given["patch_valid"] & False}, {}, "without a patch"),
        ({**given, "patch_valid": given["patch_valid"][:, 1:]}, {}, "patch_valid: "),
    ]
    for x, options, message in cases:
        with pytest.raises(ValueError, match=message):
            model(x, **options)
    with pytest.raises(TypeError, match=r"images\[0\]: str"):
        model(["a.png"])
    with pytest.raises(TypeError, match="images: list is no batch"):
        timm.create_model("rpb_swin_t", embed_dim=24)([image])
