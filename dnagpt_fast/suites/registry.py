"""The suites by name."""

from typing import cast

from dnagpt_fast.suites import genomic_benchmarks, gue, lm, mpra, poly_a, variants, zero_shot
from dnagpt_fast.suites.task import Suite

EVERY = (gue, genomic_benchmarks, poly_a, variants, mpra, zero_shot, lm)
SUITES: dict[str, Suite] = {one.NAME: cast(Suite, one) for one in EVERY}


def suite(name: str) -> Suite:
    """Raises ValueError that lists the suites for another name."""
    if name not in SUITES:
        raise ValueError(f"no suite {name!r}: there are {', '.join(SUITES)}")
    return SUITES[name]
