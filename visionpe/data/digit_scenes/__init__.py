"""Scenes of real handwritten digits, written as COCO json and as ADE20K directories."""
