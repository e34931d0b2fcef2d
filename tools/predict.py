"""The same as ``visionpe predict``."""

from functools import partial

from visionpe.cli import predict

main = partial(predict.run, prog="predict.py")

if __name__ == "__main__":
    main()
