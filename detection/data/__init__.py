"""Data sets for mmpretrain."""
