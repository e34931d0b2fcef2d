"""The same as ``visionpe quickstart segmentation``."""

import sys
from functools import partial

from visionpe.cli import quickstart

main = partial(quickstart.segmentation, prog="quickstart_segmentation.py")

if __name__ == "__main__":
    sys.exit(main())
