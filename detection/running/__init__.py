"""From a config to a run: the Runner, modes, checkpoints, resuming, optimisers, exports."""
