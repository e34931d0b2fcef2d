"""Point clouds: readers, procedurally built rooms, augmentations and metrics."""
