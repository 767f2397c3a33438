"""The suites by name."""

from typing import cast

from dnagpt_fast.suites import gue
from dnagpt_fast.suites.task import Suite

SUITES: dict[str, Suite] = {one.NAME: cast(Suite, one) for one in (gue,)}


def suite(name: str) -> Suite:
    """Raises ValueError that lists the suites for another name."""
    if name not in SUITES:
        raise ValueError(f"no suite {name!r}: there are {', '.join(SUITES)}")
    return SUITES[name]
