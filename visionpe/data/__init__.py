"""Data sets that need no download: real digits, scenes drawn with them, labelled rooms, a real scan."""
