"""Encodings of absolute positions: vectors that are added to the tokens."""
