"""visionpe: position encodings for vision transformers."""
