"""The authors' checkpoints and the command line of their script."""

from dnagpt_fast.weights.official import CheckpointError, load_official

__all__ = ["CheckpointError", "load_official"]
