"""``python -m visionpe.detection SCRIPT ...``: a program of OpenMMLab where mmcv is not compiled."""

import sys

from visionpe.detection.running.scripts import main

if __name__ == "__main__":
    sys.exit(main())
