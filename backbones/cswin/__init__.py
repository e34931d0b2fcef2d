"""CSWin: attention in stripes."""

from visionpe.backbones.cswin import cswin_models
from visionpe.backbones.cswin.model import CSWinTransformer

__all__ = ["CSWinTransformer", "cswin_models"]
