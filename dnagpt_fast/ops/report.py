"""What runs where: the dispatch table beside what the machine and the build offer."""

from typing import Any

from dnagpt_fast.ops import dispatch, native


def report() -> dict[str, Any]:
    """{"implementations": op -> device -> name as it would run now, "cpu_isa": str, "cuda_archs": list[str]}."""
    return {
        "implementations": dispatch.table(),
        "cpu_isa": native.cpu_isa(),
        "cuda_archs": native.cuda_archs(),
    }
