"""Names of our own for timm's pyramids, adapted: ``<family>_<size>``, and ``<encoding>_<family>_<size>``.

LeViT has the second kind alone, as timm's own names are ``levit_<size>``: as published it is
``attention_bias_levit_128s``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm

from visionpe.backbones.adapt.naming import register
from visionpe.backbones.shared.stage_encoding import built_by_default, injects, works_pooled
from visionpe.base import PositionEncoding
from visionpe.registry import names_of, on_register

ON_VALUES = {"value", "output", "mix"}


@dataclass(frozen=True)
class AdaptedFamily:
    """Pyramids of timm's under names of ours.

    Args:
        name: As in model names.
        sizes: Size -> name in timm.
        own: The encoding that it is published with, which leaves all as it is.
        bare: Whether a name without an encoding is free.
        widens: Whether the width changes inside a stage, so that nothing can act on the input of every block.
        wide_values: Whether values are wider than keys, so that nothing can act on them.
    """

    name: str
    sizes: Mapping[str, str]
    own: str
    bare: bool = True
    widens: bool = True
    wide_values: bool = False

    def takes(self, encoding: PositionEncoding) -> bool:
        """Whether an encoding can work in all blocks, some of which pool queries or keys."""
        sites = set(encoding.sites())
        if self.wide_values and sites & ON_VALUES:
            return False
        if self.widens and (injects(encoding) or encoding.joins_every_block):
            return False
        return works_pooled(encoding)

    def register(self, prefix: str, spec: Any) -> None:
        """Make the names of all sizes known, without the prefix and its underscore if that is empty."""
        for size, original in self.sizes.items():
            variant = f"{prefix}_{self.name}_{size}" if prefix else f"{self.name}_{size}"
            as_published = {} if spec is None else {"pos_encoding": spec}
            originals = tagged(original) if spec is None else {"": original}
            register(__name__, variant, originals, _stages, weights=spec is None, **as_published)

    def register_all(self) -> None:
        """The published names, and one for every encoding that can work here, known now or later."""
        if self.bare:
            self.register("", None)

        def of_encoding(name: str) -> None:
            built = built_by_default(name)
            for prefix in names_of(name) if built is not None and self.takes(built) else ():
                self.register(prefix, None if name == self.own else name)

        on_register(of_encoding)


def tagged(original: str) -> dict[str, str]:
    """Tag to name and tag in timm of all weights of a model, those by default first."""
    names = timm.list_models(f"{original}.*", pretrained=True)
    default = getattr(timm.get_pretrained_cfg(original, allow_unregistered=False), "tag", None)
    tags = sorted((name.partition(".")[2] for name in names), key=lambda tag: tag != default)
    return {tag: f"{original}.{tag}" for tag in tags} or {"": original}


def _stages(model: Any) -> Any:
    return model.default_out_indices


default_cfgs: dict[str, Any] = {}
LETTERS = {"t": "tiny", "s": "small", "b": "base", "bp": "base_plus", "l": "large", "h": "huge"}


def _sizes(pattern: str, letters: str) -> dict[str, str]:
    return {letter: pattern.format(LETTERS[letter]) for letter in letters.split()}


FAMILIES = (
    AdaptedFamily("hiera", _sizes("hiera_{}_224", "t s b bp l h"), "ape"),
    AdaptedFamily("hiera_abswin", _sizes("hiera_{}_abswin_256", "s b"), "abswin"),
    AdaptedFamily("sam2_hiera", _sizes("sam2_hiera_{}", "t s bp l"), "abswin"),
    AdaptedFamily("mvitv2", _sizes("mvitv2_{}", "t s b l"), "decomposed"),
    AdaptedFamily("mvitv2_cls", _sizes("mvitv2_{}_cls", "s b l h"), "decomposed"),
    AdaptedFamily("twins_pcpvt", _sizes("twins_pcpvt_{}", "s b l"), "cpe", widens=False),
    AdaptedFamily("twins_svt", _sizes("twins_svt_{}", "s b l"), "cpe", widens=False),
    AdaptedFamily(
        "levit",
        {size: f"levit_{size}" for size in ("128s", "128", "192", "256", "384")},
        "attention_bias",
        bare=False,
        wide_values=True,
    ),
)
for _family in FAMILIES:
    _family.register_all()
