"""What is drawn: values that an option may have, and values that none has."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

NUMBERS = (0, -1, 1, 2, 3, 4, 7, 16, 0.5, -0.5, 1.5, 0.0, 1.0, 0.1, 99999, 100000, 1e5, 1e-3, 1e-30, 1e300, 10**20)
ODD = (nan, inf, -inf, -1e300, 10**400, True, False, None, "", "a", "7", "1,2", b"a", 1j, (), [], {}, set(), object)
SEVERAL = ((1,), (2, 2), [3, 4], (1, 2, 3), (0.5,), (0.5, 2.0), (0, 1), (nan, 1.0), ("a", "b"), (-1, 2), (99999, 99999))
# Where every number and text would be refused as another name.
NAMES: dict[str, tuple[str, ...]] = {
    "form": ("sam2", "timm", "ld", "ap", "full", "axial", "bounded", "raw"),
    "site": ("add", "logits"),
    "layout": ("adjacent", "half", "axis_half"),
    "grid_indexing": ("ij", "xy"),
    "normalize_coords": ("separate", "max", "min"),
    "method": ("product", "cross", "quant", "euclidean"),
    "mode": ("contextual", "bias"),
    "on": ("k", "q", "qk", "qkv", "v"),
    "kernel": ("log", "power"),
    "unit": ("image", "token"),
    "signals": ("XYZ", "XYZ_RGB", "rgb_norm"),
    "global_pool": ("avg", "max", "avgmax", "catavgmax", "token", "map", "prr", "", "fast"),
    "padding": ("mask", "tokens", "values"),
    "window_policy": ("keep", "grow"),
    "window_fit": ("per_axis", "shorter_side"),
    "stripe_policy": ("keep", "grow"),
    "group_type": ("constant", "linear", "linear_div", "alter", "7_14"),
    "group_fit": ("per_axis", "whole_map"),
    "weight_init": ("skip", "jax", "moco", "reset", ""),
    "act_layer": ("gelu", "relu"),
    "norm_layer": ("layernorm", "rmsnorm"),
    "policy": ("default", "interpolate", "extrapolate", "yarn", "bilinear", "rescale(0.5)", "yarn+temperature"),
}
# What some number of the range would be.
GOOD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("theta", "temperature", "base", "gamma", "ratio", "c", "init_value", "gain"), (1, 2.5, 10.0, 100)),
    **dict.fromkeys(("min_period", "jitter_coords", "rescale_coords", "enlarge"), (1, 1.5, 2)),
    **dict.fromkeys(("max_period", "shift_coords", "decay_range", "global_slope", "mlp_ratio"), (2, 3.0, 4)),
    **dict.fromkeys(("p", "rate", "dropout", "init_std", "prefix_position"), (0, 0.25, 0.5)),
    **dict.fromkeys(("eps", "norm_eps", "init_values"), (1e-6, 1e-3, 0.1)),
    **dict.fromkeys(("hidden", "features", "encoder_dim", "pe_dim", "embed_dim", "neck_channels"), (8, 16, 32)),
    **dict.fromkeys(("groups", "encoder_heads", "encoder_layers", "max_digits", "depth", "num_classes"), (1, 2, 3)),
    **dict.fromkeys(("quant_size", "prefix_slots", "block_size", "num_heads", "reg_tokens", "up_k"), (1, 2, 4)),
    **dict.fromkeys(("window", "background", "window_size", "attention_window", "patch_size"), (2, 3, 4, (2, 3))),
    **dict.fromkeys(("img_size", "pretrain_img_size", "trained_size", "window_img_size", "cloud_size"), (24, 32, 40)),
    **dict.fromkeys(("layers", "global_blocks", "residual_blocks"), ((0,), (0, 1), (1,))),
    **dict.fromkeys(("kernel_size", "in_chans", "down_k", "first_down_stride"), (1, 3)),
    **dict.fromkeys(("scale", "aspect", "layer_slopes"), ((0.5, 1.0), (0.2, 1))),
    **dict.fromkeys(("depths", "num_heads", "stripe_widths"), ((1, 1), (2, 2), (2, 1, 2))),
    "group_size": (3, (2, 4), ((2, 3), 4)),
    "crs_interval": ((2, 1), (1, 3)),
    "merge_size": ((2, 4), ((2,),), 2),
    "pad_type": (0, 1),
    "range": (12, (15, 16)),
    "grid_offset": (1, 0.5, -2.0),
    "ref_feat_shape": (7, (4, 9)),
    "mrope_section": ((2, 3, 3), (8, 12, 12)),
    "view": (45, 90, 180),
}
FLAGS = (True, False)
POLICIES = (
    *("extrapolate", "interpolate", "rescale", "clamp", "ntk", "yarn", "riflex", "resonance", "p", "temperature"),
    *("bicubic", "bilinear", "nearest", "bicubic_antialias", "fourier", "window_aware", "geometric", "native", "reach"),
    *("decay", "patch_resize", "downscale", "default", "fractional", "unknown", ""),
)
NUMBERS_OF_POLICIES = ("0", "1", "0.5", "-1", "2", "inf", "nan", "1e400", "x", "")


def value(name: str = "") -> SearchStrategy[Any]:
    """A value for the option of this name, sensible or not."""
    known = NAMES.get(name) or GOOD.get(name)
    pools = [NUMBERS, NUMBERS, ODD, SEVERAL] + ([known] * 6 if known else [FLAGS])
    return st.sampled_from(pools).flatmap(st.sampled_from)


@st.composite
def some_of(draw: Any, names: list[str], most: int = 3) -> dict[str, Any]:
    """Values for a few options."""
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=most)) if names else []
    return {name: draw(value(name)) for name in chosen}


@st.composite
def policy(draw: Any, known: Sequence[str] = ()) -> Any:
    """A policy as text, or what is none; half of the time of those that are known."""
    if known and draw(st.booleans()):
        return "+".join(draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True)))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(value(), st.text(max_size=8), st.lists(st.sampled_from(POLICIES), max_size=2)))
    terms = []
    for name in draw(st.lists(st.sampled_from(POLICIES), min_size=1, max_size=3)):
        numbers = draw(st.lists(st.sampled_from(("0", "1", "0.5", "-1", "2", "inf", "nan", "1e400", "x")), max_size=2))
        terms.append(f"{name}({', '.join(numbers)})" if numbers else name)
    return "+".join(terms)
