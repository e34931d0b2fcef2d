"""The wrappers, one a file: an encoding under them sees other positions in training, and its own in eval mode."""
