"""The same as ``visionpe list encodings``."""

import sys

from visionpe.cli.listing import main

if __name__ == "__main__":
    sys.exit(main(["encodings"]))
