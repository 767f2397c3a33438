"""What a run will take: FLOPs, memory, time, and the accelerators."""
