"""What the quickstarts of detection and segmentation share."""
