"""Detection and segmentation against the test scale: the half of the resolution study that runs mmdet and mmseg."""
