"""The same as ``visionpe quickstart rooms``."""

import sys
from functools import partial

from visionpe.cli import quickstart

main = partial(quickstart.rooms, prog="quickstart_rooms.py")

if __name__ == "__main__":
    sys.exit(main())
