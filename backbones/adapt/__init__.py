"""timm's own models taken over: their positions as encodings, one family a file."""
