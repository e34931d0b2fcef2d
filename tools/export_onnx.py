"""The same as ``visionpe export``."""

import sys
from functools import partial

from visionpe.cli import export

main = partial(export.main, prog="export_onnx.py")

if __name__ == "__main__":
    sys.exit(main())
