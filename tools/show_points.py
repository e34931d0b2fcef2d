"""The same as ``visionpe points``."""

import sys
from functools import partial

from visionpe.cli import points

main = partial(points.main, prog="show_points.py")

if __name__ == "__main__":
    sys.exit(main())
