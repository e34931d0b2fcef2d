"""The same as ``visionpe scenes``."""

import sys
from functools import partial

from visionpe.cli import scenes

main = partial(scenes.main, prog="make_digit_scenes.py")

if __name__ == "__main__":
    sys.exit(main())
