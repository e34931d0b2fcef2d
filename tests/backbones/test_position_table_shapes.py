"""A table that a file holds as a sequence gets the shape it was trained in, or one clear refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from conftest import randomize
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import visionpe  # noqa: F401  registers the models

PATCH = 16
TINY = dict(embed_dim=32, depth=1, num_heads=2, num_classes=5)
ONE_ERROR = r"^(pos_embed of \d+ tokens|the checkpoint does not fit)"


def timm_vit(size: tuple[int, int], **kwargs: object) -> VisionTransformer:
    return randomize(VisionTransformer(img_size=size, patch_size=PATCH, dynamic_img_size=True, **{**TINY, **kwargs}))


def our_vit(size: object, name: str = "ape_vit_s", **kwargs: object) -> torch.nn.Module:
    return timm.create_model(name, img_size=size, **{"init_values": 0, **TINY, **kwargs}).eval()


def grid(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // PATCH, size[1] // PATCH


def slotless(table: Tensor, model: VisionTransformer, size: tuple[int, int]) -> Tensor:
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    return table[0, prefix:].unflatten(0, grid(size))


# With a class slot 225, 961, 49, 169 and 577 entries; without 225 and 64, which are squares too.
SIZES = [(224, 256), (480, 512), (96, 128), (192, 224), (288, 512), (144, 400), (64, 256), (112, 448)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reg_tokens", [0, 1, 4])
@pytest.mark.parametrize("no_embed_class", [False, True])
@torch.no_grad()
def test_the_models_own_shape(size: tuple[int, int], reg_tokens: int, no_embed_class: bool) -> None:
    kwargs = dict(reg_tokens=reg_tokens, no_embed_class=no_embed_class)
    theirs, ours = timm_vit(size, **kwargs), our_vit(size, reg_tokens=reg_tokens)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.pos_encoding.ape.table, slotless(theirs.pos_embed, theirs, size))
    x = torch.randn(1, 3, *size)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reg_tokens", [0, 4])
@torch.no_grad()
def test_without_class_token(reg_tokens: int) -> None:
    """15 x 15 without a slot, in a model whose map has as many tokens as the table without one entry."""
    kwargs = dict(class_token=False, global_pool="avg", reg_tokens=reg_tokens)
    theirs, x = timm_vit((240, 240), **kwargs), torch.randn(1, 3, 240, 240)
    for size in ((240, 240), (224, 256)):
        ours = our_vit(size, **kwargs)
        ours.load_state_dict(theirs.state_dict())
        if size == (240, 240):
            torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
        else:
            want = our_vit((240, 240), **kwargs)
            want.load_state_dict(theirs.state_dict())
            torch.testing.assert_close(ours.pos_encoding.ape.table, want.pos_encoding.ape.resized((14, 16)))


@pytest.mark.parametrize(
    ("size", "target"), [((224, 224), (224, 224)), ((224, 256), (224, 256)), ((96, 128), (64, 64))]
)
def test_class_tokens_are_not_guessed(size: tuple[int, int], target: tuple[int, int]) -> None:
    with_token, without = timm_vit(size), timm_vit(size, class_token=False, global_pool="avg", fc_norm=False)
    for file, kwargs in (
        (with_token, dict(class_token=False, global_pool="avg", fc_norm=False)),
        (without, {}),
    ):
        with pytest.raises(RuntimeError, match=ONE_ERROR):
            our_vit(target, **kwargs).load_state_dict(file.state_dict())


def test_another_number_of_registers_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"reg_token|not in the model|missing"):
        our_vit((224, 256), reg_tokens=2).load_state_dict(timm_vit((224, 256), reg_tokens=4).state_dict())


@pytest.mark.parametrize("size", [(224, 256), (192, 224), (480, 512)])
def test_a_rectangle_is_not_taken_for_a_square(size: tuple[int, int]) -> None:
    """14 x 16 with a class slot has the 225 entries of 15 x 15; in a model of another size nothing tells."""
    file = timm_vit(size).state_dict()
    entries = file["pos_embed"].shape[1]
    with pytest.raises(RuntimeError, match=rf"pos_embed of {entries} tokens may be .* trained_size=\(height, width\)"):
        our_vit(64).load_state_dict(file)
    told = our_vit(64, trained_size=size)
    told.load_state_dict(file)
    own = our_vit(size)
    own.load_state_dict(file)
    torch.testing.assert_close(told.pos_encoding.ape.table, own.pos_encoding.ape.resized((4, 4)))


def overlay(file: Path, size: tuple[int, int] | None) -> dict[str, object]:
    known = {"file": str(file), "num_classes": TINY["num_classes"]}
    return known if size is None else {**known, "input_size": (3, *size)}


def test_the_same_count_in_another_shape_is_resized(tmp_path: Path) -> None:
    """24 x 24 tokens in a model of 18 x 32: where the size of the weights is known, it counts."""
    square, wide = (384, 384), (288, 512)
    file = timm_vit(square).state_dict()
    torch.save(file, tmp_path / "square.pth")
    source = our_vit(square)
    source.load_state_dict(file)
    resized = source.pos_encoding.ape.resized((18, 32))
    options = dict(pretrained=True, pretrained_cfg_overlay=overlay(tmp_path / "square.pth", square))
    for model in (
        our_vit(wide, **options),
        our_vit(wide, checkpoint_path=tmp_path / "square.pth", trained_size=384),
    ):
        torch.testing.assert_close(model.pos_encoding.ape.table, resized)
    # Two sizes are known, and both fit.
    with pytest.raises(RuntimeError, match="may be 18 x 32 with 1 prefix slots or 24 x 24 with 1 prefix slots"):
        our_vit(wide, "ape_vit_s.deit3_384_in1k", checkpoint_path=tmp_path / "square.pth")
    model = our_vit(square)
    model.set_input_size(wide)
    with pytest.raises(RuntimeError, match="may be 18 x 32 with 1 prefix slots or 24 x 24 with 1 prefix slots"):
        model.load_state_dict(file)


def test_published_sizes_are_known() -> None:
    """A file of DeiT-III at 384, without slots, in a model of any size: 24 x 24 is a size of these weights."""
    file = timm_vit((384, 384), no_embed_class=True).state_dict()
    model, source = our_vit(64), our_vit(384)
    for each in (model, source):
        each.load_state_dict(file)
    torch.testing.assert_close(model.pos_encoding.ape.table, source.pos_encoding.ape.resized((4, 4)))


def test_official_tables_have_no_slots() -> None:
    """DeiT-III's own code at 240 pixels, in a model of 14 x 16 tokens: 15 x 15, not 14 x 16 and a slot."""
    theirs = timm_vit((240, 240), no_embed_class=True, init_values=1e-4)
    file = {
        k.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): v for k, v in theirs.state_dict().items()
    }
    model, source = (our_vit(size, init_values=1e-4) for size in ((224, 256), (240, 240)))
    for each in (model, source):
        each.load_state_dict(file)
    torch.testing.assert_close(model.pos_encoding.ape.table, source.pos_encoding.ape.resized((14, 16)))


@pytest.mark.parametrize("no_embed_class", [True, False])
def test_squares_of_layer_scale(no_embed_class: bool) -> None:
    """DeiT-III at timm, without slots, at a size that nobody published, in a model of another; and DINOv2."""
    theirs = timm_vit((240, 240), no_embed_class=no_embed_class, init_values=1e-4)
    model, source = (our_vit(size, init_values=1e-4) for size in (64, 240))
    for each in (model, source):
        each.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(model.pos_encoding.ape.table, source.pos_encoding.ape.resized((4, 4)))


def test_another_patch() -> None:
    """The file's patch tells its tokens: 112 x 128 pixels are 14 x 16 patches of 8, here 7 x 8 of 16."""
    theirs = randomize(VisionTransformer(img_size=(112, 128), patch_size=8, **TINY))
    ours = our_vit((112, 128))
    ours.load_state_dict(theirs.state_dict())
    wide = our_vit((224, 256))
    wide.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.pos_encoding.ape.table, wide.pos_encoding.ape.resized((7, 8)))


VITDET = dict(name="ape_vitdet_b", window_size=3, img_size=64)


@pytest.mark.parametrize("size", [(224, 256), (192, 224), (112, 448)])
@pytest.mark.filterwarnings("ignore:the checkpoint has no classifier")
def test_vitdet_asks_the_size_of_pretraining(size: tuple[int, int]) -> None:
    kwargs = {k: v for k, v in VITDET.items() if k != "name"}
    for file in (timm_vit(size), timm_vit(size, class_token=False, global_pool="avg")):
        state = file.state_dict()
        model = timm.create_model("ape_vitdet_b", pretrain_img_size=size, **{**TINY, **kwargs})
        model.load_state_dict(state)
        assert torch.equal(model.pos_encoding.map.ape.table, slotless(file.pos_embed, file, size))


@pytest.mark.filterwarnings("ignore:the checkpoint has no classifier")
def test_vitdet_refuses_to_guess() -> None:
    kwargs = {k: v for k, v in VITDET.items() if k != "name"}
    state = timm_vit((224, 256), num_classes=0).state_dict()
    with pytest.raises(RuntimeError, match=r"pos_embed of 225 tokens may be .*pretrain_img_size=\(height, width\)"):
        timm.create_model("ape_vitdet_b", **{**TINY, **kwargs}).load_state_dict(state)
    both = timm_vit((112, 448)).state_dict()  # 7 x 28 are the 196 tokens of 14 x 14
    model = timm.create_model("ape_vitdet_b", **{**TINY, **kwargs, "img_size": (112, 448)})
    with pytest.raises(RuntimeError, match="may be 14 x 14 with 1 prefix slots or 7 x 28 with 1 prefix slots"):
        model.load_state_dict(both)
