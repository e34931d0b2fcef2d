"""The same as ``visionpe benchmark backbones``."""

import sys
from functools import partial

from visionpe.cli import benchmark

main = partial(benchmark.backbones, prog="benchmark_backbones.py")

if __name__ == "__main__":
    sys.exit(main())
