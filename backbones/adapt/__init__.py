"""timm's own models taken over: their positions as encodings, one family a file."""

from importlib import import_module
from pkgutil import iter_modules

from visionpe.backbones.adapt.adapted import ADAPTED, Adapted
from visionpe.backbones.adapt.adapting import adapt

__all__ = ["ADAPTED", "Adapted", "adapt"]

for _module in iter_modules(__path__):  # a family is known when its file is imported
    import_module(f"{__name__}.{_module.name}")
