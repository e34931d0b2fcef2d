"""Point clouds as pages to turn and as pictures."""
