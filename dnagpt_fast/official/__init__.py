"""Published checkpoints, and the command line of the official script."""

from dnagpt_fast.weights.official import CheckpointError, load_official

__all__ = ["CheckpointError", "load_official"]
