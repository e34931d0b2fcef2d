"""The same as ``visionpe test``."""

import sys
from functools import partial

from visionpe.cli import test

main = partial(test.main, prog="test.py")

if __name__ == "__main__":
    sys.exit(main())
