"""Benchmarks run in one process: two at once would time each other."""


def pytest_xdist_auto_num_workers() -> int:
    return 0
