"""The same as ``visionpe benchmark``."""

import sys
from functools import partial

from visionpe.cli import benchmark

main = partial(benchmark.encodings, prog="benchmark.py")

if __name__ == "__main__":
    sys.exit(main())
