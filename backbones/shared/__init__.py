"""The parts of backbones: blocks, windows, stages, pyramids, loading, and registering with timm."""
