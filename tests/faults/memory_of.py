"""python -m tests.faults.memory_of WHAT TWOBIT MODEL [BASES]: measures the peak memory of a process beyond
its model.

WHAT is score or embed. The first contig is read as one sequence, or only its first BASES bases. Prints JSON:
bases done, seconds, number of progress reports, and the growth of the largest resident memory in bytes, in
total and after a tenth of the work.
"""

import json
import sys
import time
from pathlib import Path

from dnagpt_fast.genome import Genome
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.score import score
from dnagpt_fast.weights.forms import load_model


class Enough(Exception):
    """Raised when BASES bases are done."""


def largest_bytes() -> int:
    """The largest resident memory of this process so far. Pages of mapped files count. (getrusage would also count the
    memory of the process that started this one.)"""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def main(what: str, genome: str, model_path: str, most_bases: int | None) -> None:
    model, tokenizer = load_model(model_path)
    call = {"score": score, "embed": embed}[what]
    # Memory that libraries allocate at first use is not counted.
    list(call(model, tokenizer, ["ACGT" * model.max_len * tokenizer.k * 16]))
    before, began = largest_bytes(), time.monotonic()
    done, reports, early = 0, 0, 0
    with Genome.open(Path(genome)) as opened:
        wanted = int(opened.lengths[0]) if most_bases is None else most_bases

        def progress(more: int) -> None:
            nonlocal done, reports, early
            done, reports = done + more, reports + 1
            if done <= wanted // 10:
                early = largest_bytes()
            if most_bases is not None and done >= wanted:
                raise Enough

        try:
            found = list(call(model, tokenizer, [opened.range(opened.names[0])], progress=progress))
            assert len(found) == 1
        except Enough:
            pass
    answer = {
        "bases": done,
        "seconds": time.monotonic() - began,
        "reports": reports,
        "grown_bytes": largest_bytes() - before,
        "grown_early_bytes": early - before,
    }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) > 4 else None)
