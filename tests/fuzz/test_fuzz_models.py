"""Every family of backbones: keywords of the constructor, policies, and sizes that change afterwards."""

from __future__ import annotations

import inspect
from typing import Any

import timm
import torch
from fuzz_models import CLOUDS, IMAGES, SPECS, TINY, build, cloud, model
from fuzz_outcomes import fuzz, judge
from fuzz_values import policy, some_of, value
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import visionpe
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.policy import PolicyTable

# Whatever a user hands over as code or as a place to load from is theirs.
OWN = {"self", "options", "kwargs", "block_fn", "embed_layer", "mlp_layer", "pos_embed", "embed_norm_layer"}
EXTRA = ["policy", "trained_size", "trained_patch_size", "window_img_size", "unknown_keyword"]


def keywords(family: str) -> list[str]:
    """Names of all that the constructor of a family takes."""
    names = set(inspect.signature(type(model(family)).__init__).parameters)
    if family in ("swin", "cswin", "crossformer", "rmt", "cpvt", "mit", "cvt"):
        names |= set(inspect.signature(PyramidOptions).parameters)
    if family in ("vit", "vitdet"):
        names |= set(inspect.signature(VisionTransformer.__init__).parameters)
    if family == "swin3d_unet":
        names |= set(inspect.signature(type(model("swin3d")).__init__).parameters)
    return sorted(names - OWN) + EXTRA


@st.composite
def constructions(draw: Any) -> tuple[str, dict[str, Any], bool]:
    family = draw(st.sampled_from((*IMAGES, *IMAGES, *CLOUDS)))
    options = draw(some_of(keywords(family), most=2))
    if draw(st.booleans()):
        options["pos_encoding"] = draw(st.sampled_from(SPECS))
    if draw(st.integers(0, 4)) == 0:
        options["policy"] = draw(policy())
    return family, options, draw(st.booleans())


def run(network: nn.Module, family: str, *, train: bool = False, channels: int | None = None) -> Any:
    """A forward pass; in training with the gradients of all parameters."""
    network.train(train)
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    x = cloud(channels=channels or 6) if family in CLOUDS else torch.randn(2, channels or 3, 28, 24)
    x = x.to(dtype)
    if not train:
        with torch.no_grad():
            return network(x)
    y = network(x)
    y = y.features if hasattr(y, "features") else y
    y.float().square().mean().backward()
    return [y, *(p.grad for p in network.parameters() if p.grad is not None)]


def construct(family: str, options: dict[str, Any], train: bool) -> Any:
    return run(build(family, **options), family, train=train, channels=options.get("in_chans"))


@fuzz(0.25, 70)
@given(constructions())
def test_constructors(case: tuple[str, dict[str, Any], bool]) -> None:
    judge(f"models {case[0]}", lambda: construct(*case), case)


@st.composite
def settings(draw: Any) -> tuple[Any, ...]:
    family = draw(st.sampled_from((*IMAGES, *CLOUDS)))
    spec = draw(st.sampled_from(("ape", "rope_mixed", "cpe") if family in IMAGES else ("crse", "rope_mixed", "cpe")))
    sizes = st.sampled_from((32, "24x40", (24, 32), "axb", 0, -1, 1.5, True, None, (1, 2, 3), "99999"))
    table = st.dictionaries(sizes, policy(), max_size=2)
    known = policy(visionpe.policies(model(family, spec)))
    return family, spec, draw(st.one_of(known, known, known, table)), draw(st.sampled_from((None, None, 32, "a", 0)))


def follow(family: str, spec: str, chosen: Any, size: Any) -> Any:
    network = visionpe.set_policy(model(family, spec), chosen, size=size)
    if isinstance(chosen, dict):
        PolicyTable(chosen).nearest(32)
    return run(network, family)


@fuzz(0.12, 60)
@given(settings())
def test_policies(case: tuple[Any, ...]) -> None:
    judge("policies", lambda: follow(*case), case)


CHANGES = ("set_input_size", "reset_classifier", "prune_intermediate_layers", "trained_size", "choose", "features")


@st.composite
def changes(draw: Any) -> tuple[Any, ...]:
    family, spec = draw(st.sampled_from(IMAGES)), draw(st.sampled_from(("ape", "rope_mixed+cpe", "abswin", None)))
    return family, spec, draw(st.sampled_from(CHANGES)), draw(st.data())


def size(data: Any) -> Any:
    good = st.sampled_from((24, 32, (24, 40), (30, 28), 2, (4, 4)))
    return data.draw(st.one_of(good, good, value("size")))


def change(family: str, spec: str | None, what: str, data: Any) -> Any:
    """One call on a built model, then a forward pass."""
    if what == "features":
        indices = data.draw(st.one_of(st.sampled_from((1, (0, 1), (1, 0), (-1,), (0, 99), ())), value("out_indices")))
        name, settings = TINY[family]
        options = {**settings, **({} if spec is None else {"pos_encoding": spec})}
        return timm.create_model(name, features_only=True, out_indices=indices, **options)(torch.randn(1, 3, 24, 28))
    network: Any = model(family, spec)
    if what == "set_input_size":
        third = {"vit": "patch_size", "vitdet": "patch_size", "swin": "window_size", "cswin": "stripe_widths"}.get(
            family
        )
        options = {"img_size": size(data)} if data.draw(st.booleans()) else {}
        if third and data.draw(st.booleans()):
            options[third] = data.draw(st.one_of(st.sampled_from((2, 4, (2, 2), (1, 2, 2))), value(third)))
        network.set_input_size(**options)
    elif what == "reset_classifier":
        network.reset_classifier(data.draw(value("num_classes")), data.draw(value("global_pool")))
    elif what == "prune_intermediate_layers":
        network.prune_intermediate_layers(data.draw(st.one_of(st.sampled_from((1, (0,), (-1, 0))), value("indices"))))
    elif what == "trained_size":
        return build(family, trained_size=size(data), **({} if spec is None else {"pos_encoding": spec}))(
            torch.randn(1, 3, 24, 28)
        )
    else:
        images = torch.randn(4, 3, 24, 24)
        trained = data.draw(st.sampled_from((None, 24)))
        return visionpe.choose_policy(network, images, size(data), trained=trained).scores
    return network.forward_intermediates(torch.randn(2, 3, 36, 24), intermediates_only=True)


@fuzz(0.08, 60)
@given(changes())
def test_changes(case: tuple[Any, ...]) -> None:
    with torch.no_grad():
        judge("changes", lambda: change(*case), case[:3])
