"""What constructors of backbones are given: the range of every keyword, stated once, whoever takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from timm.layers import get_act_layer, get_norm_layer
from torch import nn

from visionpe.checks import check_choice, check_count, check_counts, check_flag, check_number, check_pair, shown
from visionpe.ranges import MAX_DEPTH, MAX_PIXELS, MAX_PREFIX, check_factory

Check = Callable[[str, Any], Any]
# Channels of tokens, stages, weights in all blocks together: no model comes near.
MAX_DIM, MAX_STAGES, MAX_WEIGHTS = 2**14, 8, 2**33
MAX_PATCH, MAX_WINDOW, MAX_TOKENS = 1024, 1024, 2**22


def counts(low: int, high: int) -> Check:
    return lambda name, value: check_count(name, value, low, high)


def _numbers(low: float, high: float) -> Check:
    return lambda name, value: check_number(name, value, low, high)


def _rate(name: str, value: Any) -> float:
    return check_number(name, value, 0, below=1)


def _layer(get: Callable[[Any], Any]) -> Check:
    def check(name: str, value: Any) -> None:
        try:
            known = value is None or callable(value) or (isinstance(value, str) and get(value) is not None)
        except (AssertionError, KeyError, AttributeError):
            known = False
        if not known or (isinstance(value, type) and not issubclass(value, nn.Module)):
            raise ValueError(f"{name}={shown(value)} is no layer; allowed: a class of one, or a name that timm knows")

    return check


def _no_choice(what: str) -> Check:
    def check(name: str, value: Any) -> None:
        raise ValueError(f"{name}={shown(value)}: {what}; allowed: leave it out")

    return check


# Keyword -> what refuses a value.
CHECKS: dict[str, Check] = {
    "in_chans": counts(1, 4096),
    "num_classes": counts(0, 10**6),
    "embed_dim": counts(1, MAX_DIM),
    "depth": counts(1, MAX_DEPTH),
    "num_heads": counts(1, MAX_DIM),
    "mlp_ratio": lambda name, value: check_number(name, value, above=0, high=100),
    "reg_tokens": counts(0, MAX_PREFIX),
    "init_values": _numbers(0, 100),
    "norm_eps": _numbers(1e-30, 1),
    "embed_norm_eps": _numbers(1e-30, 1),
    "weight_init": lambda name, value: check_choice(name, value, ("", "skip", "reset", "jax", "jax_nlhb", "moco")),
    "norm_layer": _layer(get_norm_layer),
    "embed_norm_layer": _layer(get_norm_layer),
    "act_layer": _layer(get_act_layer),
    "attn_layer": _no_choice("attention is that of the position encoding"),
}
RATES = ("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
FLAGS = (
    *("qkv_bias", "qk_norm", "scale_attn_norm", "scale_mlp_norm", "proj_bias", "class_token", "pre_norm", "final_norm"),
    *("fc_norm", "pool_include_prefix", "dynamic_img_pad", "fix_init", "feature_norms", "knn_down", "stem_transformer"),
)
CHECKS |= dict.fromkeys(RATES, _rate) | dict.fromkeys(FLAGS, check_flag)


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse values out of range, of the keywords that are known here; None is a default.

    Raises:
        TypeError, ValueError: Names the keyword, what was given and what is allowed.
    """
    for name, value in given.items():
        if name in CHECKS and value is not None:
            CHECKS[name](name, value)
    check_factory(given.get("device"), given.get("dtype"))


def check_keywords(model: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse keywords that a constructor does not take.

    Raises:
        TypeError: If one of them is unknown, with near matches.
    """
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"{model} takes no keyword {key!r}{hint}")


def keywords_of(*models: type[nn.Module]) -> list[str]:
    """Names of the keywords of constructors."""
    return [
        name
        for model in models
        for name, parameter in inspect.signature(model.__init__).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name != "self"
    ]


def check_image_size(img_size: Any, patch_size: Any, name: str = "img_size") -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the trained images and of patches, pixels.

    Args:
        img_size, patch_size: What was given.
        name: Of the former, for the message.

    Raises:
        TypeError, ValueError: If one is no size, or an image is smaller than a patch or makes too many of them.
    """
    image, patch = check_pair(name, img_size, 1, MAX_PIXELS), check_pair("patch_size", patch_size, 1, MAX_PATCH)
    if image[0] < patch[0] or image[1] < patch[1]:
        raise ValueError(
            f"{name}={shown(img_size)} is smaller than a patch; allowed: patch_size={shown(patch_size)} or more"
        )
    tokens = -(-image[0] // patch[0]) * -(-image[1] // patch[1])
    if tokens > MAX_TOKENS:
        raise ValueError(
            f"{name}={shown(img_size)} with patch_size={shown(patch_size)} makes {tokens} tokens; allowed: up to "
            f"{MAX_TOKENS}"
        )
    return image, patch


def check_blocks(dims: Sequence[int], depths: Sequence[int], mlp_ratio: float, width: str = "embed_dim") -> None:
    """Refuse blocks that nobody could hold, and MLPs without channels.

    Args:
        dims, depths: Width and number of the blocks of each stage.
        mlp_ratio: Width of the MLPs over that of the tokens.
        width: Name of the keyword of ``dims``, for the message.

    Raises:
        ValueError: Names what is too large or too small.
    """
    check_number("mlp_ratio", mlp_ratio, above=0, high=100)
    if int(min(dims) * mlp_ratio) < 1:
        raise ValueError(f"mlp_ratio={mlp_ratio} leaves no channels of {min(dims)}; allowed: 1 / {width} or more")
    if max(dims) > MAX_DIM:
        raise ValueError(f"{width}={shown(tuple(dims))} must be less; allowed: up to {MAX_DIM}")
    weights = sum(int((4 + 2 * mlp_ratio) * dim**2) * depth for dim, depth in zip(dims, depths))
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"{width}={shown(tuple(dims))} with depths {shown(tuple(depths))} make {weights} weights in blocks; "
            f"allowed: up to {MAX_WEIGHTS}"
        )


def check_stages(**settings: Any) -> list[tuple[int, ...]]:
    """Numbers of the stages: as many of each, all positive, ``depths`` first.

    Returns:
        Them as tuples, in the order given.

    Raises:
        TypeError, ValueError: Names the first that is none, or is of another length.
    """
    (first, depths), *others = settings.items()
    stages = len(check_counts(first, depths, range(1, MAX_STAGES + 1), 1, MAX_DEPTH))
    return [tuple(depths), *(check_counts(name, values, stages, 1, MAX_DIM) for name, values in others)]
