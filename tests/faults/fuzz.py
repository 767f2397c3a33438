"""python -m tests.faults.fuzz [COUNT] [NAME ...]: reads damaged files of every format except text, counts
outcomes.

COUNT (200,000) inputs are divided among the readers by their weights; NAMEs choose readers. For each reader
it counts files that were read, files that were refused, and faults: errors that the command line reports as
its own faults, errors that do not name the file, advice to turn protection off, more than 10 s, more than 200
MiB. The first fault of each kind is printed with the number of its input, which `--seed` repeats. Exit code 1
if there are faults.

tests/test_corpus.py and tests/genome/test_fuzz.py do the same for text (tables, FASTA, BED, VCF, annotation).
"""

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from tests.faults.fuzz_targets import TARGETS, Target
from tests.faults.hostile_folder import ADVICE
from tests.faults.memory_of import largest_bytes

LONGEST_S = 10.0
MOST_BYTES = 200 << 20
COUNT = 200_000


class Hang(BaseException):
    """An input took more than LONGEST_S."""


def _hang(*_: object) -> None:
    raise Hang


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def judged(error: BaseException | None, folder: Path) -> str:
    """`read`, `refused`, or the name of a fault."""
    if error is None:
        return "read"
    said = str(error)
    if isinstance(error, Hang):
        return "hang"
    if not isinstance(error, ValueError | OSError) or isinstance(error, UnicodeError):
        return "traceback"
    if any(word in said for word in ADVICE):
        return "advice"
    return "refused" if str(folder) in said else "no file"


def fuzz(target: Target, count: int, seed: int, folder: Path, show: bool = True) -> Counter[str]:
    """The outcomes of `count` inputs, by name; `show` prints the first faults."""
    found: Counter[str] = Counter()
    harm, read = target.prepare(folder)
    read()  # undamaged files are read
    for number in range(count):
        chance = random.Random(f"{target.name} {seed} {number}")
        harm(chance)
        error: BaseException | None = None
        # what earlier inputs have left for the collector is not this one's
        forget_peak()
        before = largest_bytes()
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
        try:
            read()
        except (Exception, Hang) as caught:  # noqa: BLE001 whatever comes out is judged
            error = caught
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        kinds = [judged(error, folder)]
        if largest_bytes() - before > MOST_BYTES:
            kinds.append("blow-up")
        for kind in kinds:
            found[kind] += 1
            if show and kind not in ("read", "refused") and found[kind] <= 3:
                where = "".join(traceback.format_exception(error)[-3:]) if error else ""
                sys.stdout.write(
                    f"{target.name} {number}: {kind}: {type(error).__name__}: {error}\n{where}\n"
                )
                sys.stdout.flush()
    return found


def run(count: int, names: list[str], seed: int) -> Counter[str]:
    """All targets, or those of these names. One line each, and the sum."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _hang)
    chosen = [target for target in TARGETS if not names or target.name in names]
    weight = sum(target.weight for target in chosen)
    total: Counter[str] = Counter()
    for target in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            found = fuzz(target, -(-count * target.weight // weight), seed, Path(folder))
        total += found
        sys.stdout.write(f"{target.name:24} {_line(found)}, {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()
    sys.stdout.write(f"{'all':24} {_line(total)}\n")
    return total


def _line(found: Counter[str]) -> str:
    kinds = ("read", "refused", "traceback", "no file", "advice", "hang", "blow-up")
    inputs = found["read"] + found["refused"] + sum(found[kind] for kind in kinds[2:6])
    return f"{inputs:,} inputs: " + ", ".join(f"{found[kind]:,} {kind}" for kind in kinds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=COUNT)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = run(given.count, given.names, given.seed)
    sys.exit(1 if found.keys() - {"read", "refused"} else 0)


if __name__ == "__main__":
    main()
