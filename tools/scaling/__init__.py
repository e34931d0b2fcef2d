"""Accuracy, speed and memory of vision models against input resolution: the parts of ``tools/resolution_scaling.py``.

``sizes`` parses resolutions, ``data`` holds the images and the two protocols, ``models`` describes and builds what is
measured, ``plan`` lists the rows, ``launch`` shares them among processes, ``controls`` brings images to the trained
size, ``measure`` fills one row, ``diagnostics`` looks at its attention, ``store`` keeps finished rows, ``sweep`` walks
over all of them, ``statistics`` and ``summary`` turn rows into lines with intervals, ``published`` has what papers
state, ``report``, ``plot`` and ``page`` show them.
"""
