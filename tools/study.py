"""The same as ``visionpe study``."""

import sys
from functools import partial

from visionpe.cli import study

main = partial(study.main, prog="study.py")

if __name__ == "__main__":
    sys.exit(main())
