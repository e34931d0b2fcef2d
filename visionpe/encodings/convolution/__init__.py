"""Encodings by depthwise convolution: of the tokens, or of the values."""
