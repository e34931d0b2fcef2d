"""The same as ``visionpe scaling``."""

import sys
from functools import partial

from visionpe.cli import scaling

main = partial(scaling.main, prog="resolution_scaling.py")

if __name__ == "__main__":
    sys.exit(main())
