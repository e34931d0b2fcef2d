"""The same as ``visionpe benchmark swin3d``."""

import sys
from functools import partial

from visionpe.cli import benchmark

main = partial(benchmark.swin3d, prog="benchmark_swin3d.py")

if __name__ == "__main__":
    sys.exit(main())
