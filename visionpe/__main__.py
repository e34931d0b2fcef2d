"""``python -m visionpe`` is the ``visionpe`` command."""

import sys

from visionpe.cli import main

if __name__ == "__main__":
    sys.exit(main())
