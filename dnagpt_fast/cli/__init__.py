"""The command line `dnagpt-fast`."""

from dnagpt_fast.cli.app import main

__all__ = ["main"]
