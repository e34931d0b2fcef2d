"""The same as ``visionpe points predict``."""

import sys
from functools import partial

from visionpe.cli import points_predict

main = partial(points_predict.main, prog="predict_scan.py")

if __name__ == "__main__":
    sys.exit(main())
