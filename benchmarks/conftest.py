"""Benchmarks run in one process: two at the same time would disturb each other's times."""


def pytest_xdist_auto_num_workers() -> int:
    return 0
