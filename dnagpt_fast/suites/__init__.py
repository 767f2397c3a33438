"""The field's benchmarks as one command: `dnagpt-fast evaluate`."""
