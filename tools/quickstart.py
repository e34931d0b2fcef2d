"""The same as ``visionpe quickstart``."""

import sys
from functools import partial

from visionpe.cli import quickstart

main = partial(quickstart.classification, prog="quickstart.py")

if __name__ == "__main__":
    sys.exit(main())
