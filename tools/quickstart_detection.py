"""The same as ``visionpe quickstart detection``."""

import sys
from functools import partial

from visionpe.cli import quickstart

main = partial(quickstart.detection, prog="quickstart_detection.py")

if __name__ == "__main__":
    sys.exit(main())
