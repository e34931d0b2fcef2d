"""Accuracy, speed and memory of vision models against input resolution: the parts of ``tools/resolution_scaling.py``.

``sizes`` parses resolutions, ``data`` holds the images and the two protocols, ``models`` describes and builds what is
measured, ``measure`` fills one row, ``store`` keeps finished rows, ``sweep`` walks over all of them, ``statistics``
turns rows into intervals, ``report`` and ``plot`` show them.
"""
