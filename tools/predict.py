"""The same as ``visionpe predict``."""

import sys
from functools import partial

from visionpe.cli import predict

main = partial(predict.main, prog="predict.py")

if __name__ == "__main__":
    sys.exit(main())
