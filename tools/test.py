"""The same as ``visionpe test``."""

from functools import partial

from visionpe.cli import test

main = partial(test.run, prog="test.py")

if __name__ == "__main__":
    main()
