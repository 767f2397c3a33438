"""Runs transformers' own model, generation and tokenizer tests on our classes; only tests that do not apply
may fail.

    DNAGPT_TRANSFORMERS=<clone> python -m benchmarks.library_suite

The tests come from the clone (github.com/huggingface/transformers, at the tag of the installed version); the
installed transformers is tested. Needs `pip install parameterized httpx`. Other arguments are passed to pytest (`-k
cache`).
"""

import collections
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STRICT = (
    "from_pretrained refuses a folder without the head's tensors; the library makes new ones with a warning"
)
NOT_APPLICABLE = {
    "test_base_model_prefix_loads_base_weights": STRICT,
    "test_correct_missing_keys": STRICT,
    "test_model_weights_reload_no_missing_tied_weights": STRICT,
    "test_sdpa_padding_matches_padding_free_with_position_ids": (
        "1 of 6,930 numbers in bfloat16 exceeds the tolerance, by 7 %, with initial weights larger than the library's; "
        "tests/hub/test_masks.py compares the rounding errors of both ways with float64"
    ),
    "test_pretokenized_inputs": "splits text at spaces; DNA has none, and a space is a letter of this vocabulary",
}
"""Tests that are expected to fail, by name without parameters, with the reason."""


def main(arguments: list[str]) -> int:
    """Exit status: 0 if every failure is listed above, 1 otherwise."""
    clone = os.environ.get("DNAGPT_TRANSFORMERS")
    if not clone or not (Path(clone) / "tests" / "causal_lm_tester.py").exists():
        print(
            "DNAGPT_TRANSFORMERS: wanted a clone of transformers with tests/causal_lm_tester.py",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as folder:
        cases = Path(folder) / "test_dnagpt.py"
        shutil.copy(ROOT / "benchmarks" / "library_cases.py", cases)
        report = Path(folder) / "report.xml"
        # first the clone, whose package `tests` the cases import; from this repository only the package
        paths = [str(Path(clone).resolve()), str(ROOT), os.environ.get("PYTHONPATH", "")]
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", str(cases), "-q", "-c", os.devnull, "--rootdir", folder),
                *(
                    "-p",
                    "no:cacheprovider",
                    f"--junitxml={report}",
                    "-k",
                    "not fsdp and not hsdp and not tp_",
                ),
                *arguments,
            ],
            env=os.environ | {"PYTHONPATH": ":".join(paths), "HF_HUB_OFFLINE": "1"},
            cwd=folder,
            check=False,
        )
        return summary(report)


def summary(report: Path) -> int:
    """Prints the counts, every failure that is not listed, and listed tests that passed."""
    counts: collections.Counter[str] = collections.Counter()
    unexpected: list[str] = []
    passed: set[str] = set()
    listed: set[str] = set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        bare = name.split("[")[0]
        children = {child.tag for child in case}
        if children & {"failure", "error"}:
            if bare in NOT_APPLICABLE:
                counts["listed failures"] += 1
                listed.add(bare)
            else:
                counts["other failures"] += 1
                unexpected.append(f"{case.get('classname')}::{name}")
        elif "skipped" in children:
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
            passed.add(bare)
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    for name in sorted(listed):
        print(f"listed: {name}: {NOT_APPLICABLE[name]}")
    for name in sorted((passed & set(NOT_APPLICABLE)) - listed):
        print(f"listed, but passed: {name}")
    for name in unexpected:
        print(f"FAILED: {name}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
