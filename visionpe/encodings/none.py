"""No positions at all: the control of every comparison."""

from visionpe.base import PositionEncoding
from visionpe.registry import register_encoding


@register_encoding("none")
class NoEncoding(PositionEncoding):
    """Tokens are a set: shuffle the patches and the outputs are shuffled alike."""

    source = "control"
    irregular = True
