"""From nothing to a slim Mask R-CNN on digit scenes: boxes, classes and masks, in minutes on a CPU.

Writes the scenes (COCO json and ADE20K directories), trains a small vision transformer for each position encoding,
evaluates it at every test scale, and leaves a table, a CSV, a JSON and drawn predictions beside the ground truth.
Finished work is kept: running it again resumes.
"""

from __future__ import annotations

import sys

from dense.quickstart import main
from dense.tasks import DETECTION

if __name__ == "__main__":
    sys.exit(main(DETECTION, __doc__))
