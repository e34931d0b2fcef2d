"""The same as ``visionpe train``."""

import sys
from functools import partial

from visionpe.cli import train

main = partial(train.main, prog="train.py")

if __name__ == "__main__":
    sys.exit(main())
