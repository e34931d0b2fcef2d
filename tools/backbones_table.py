"""The same as ``visionpe list backbones``."""

import sys

from visionpe.cli.listing import main

if __name__ == "__main__":
    sys.exit(main(["backbones", *sys.argv[1:]]))
