"""The cost of a run: FLOPs, memory, time, and data of accelerators."""
