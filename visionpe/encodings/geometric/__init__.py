"""Encodings that are told of cameras: queries, keys and values turned by their matrices, rays added to the tokens."""
