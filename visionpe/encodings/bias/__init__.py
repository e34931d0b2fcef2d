"""Encodings on the attention logits: distances, tables, networks of the offset, buckets."""
