"""What encodings, backbones and attention among voxels cost, each beside other code that does the same, in one run.

``encodings``, ``backbones`` and ``voxels`` are the three benchmarks. ``specs`` reads what is measured, ``cases`` builds
it, ``peers`` does the same with other code, ``timing`` and ``memory`` measure, ``report`` and ``plot`` show. The files
``voxel_*`` are those of attention among voxels. ``encodings_table`` and ``backbones_table`` list what there is.
"""
