"""From nothing to a trained model, its numbers and pictures, on a CPU and in minutes; and the study of policies."""
