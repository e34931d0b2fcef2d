"""Real weights: a published saliency model, its positions in this package's hands, measured against the resolution.

``onnx_weights`` reads the arrays of an ONNX file, ``layout`` gives them timm's names, ``decoder`` and ``model`` are the
network; ``cutouts`` makes labelled pictures of photographs, ``measuring`` and ``rows`` measure, ``study`` does
all of it, ``results`` and ``pictures`` show it.
"""
