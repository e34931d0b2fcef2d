"""Rotary encodings: queries and keys are turned by angles that follow from positions."""
