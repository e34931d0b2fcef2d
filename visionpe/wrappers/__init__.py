"""The wrappers, one a file. Importing this package registers them."""

from visionpe.wrappers import cropped, dropped, randomised

__all__ = ["cropped", "dropped", "randomised"]
