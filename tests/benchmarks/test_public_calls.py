"""Benchmarks measure what users call: names that dnagpt_fast and dnagpt_fast.ops export, no native function."""

import ast
from pathlib import Path

import pytest

import dnagpt_fast
from dnagpt_fast import ops

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# Each CPU benchmark and the public calls that it measures.
MEASURED = {
    "bench_attention.py": {"attention"},
    "bench_call_overhead.py": {"BatchSampler", "gc_count", "kmer_tokenize"},
    "bench_calls.py": {"BatchSampler", "gc_count", "kmer_tokenize"},
    "bench_combined_loss.py": {"combined_loss"},
    "bench_fasta_pack.py": {"Genome"},
    "bench_gc_count.py": {"gc_count"},
    "bench_generate.py": {"DNAGPT"},
    "bench_kmer_tokenize.py": {"kmer_tokenize"},
    "bench_sampler.py": {"BatchSampler"},
    "bench_start_up.py": set(),  # it runs commands
    "bench_text_encode.py": {"KmerTokenizer"},
    "bench_train_step.py": {"DNAGPT", "combined_loss"},
    "bench_variants.py": {"DNAGPT", "score", "variant_scores"},
    "bench_whole_jobs.py": {"Genome", "embed", "generate_sequences", "load_model", "score"},
}
# It replaces the CUDA launch by nothing, to measure what the public call costs beside it.
REPLACES_THE_LAUNCH = "bench_call_overhead.py"


def public_names(tree: ast.AST) -> set[str]:
    """What a script and the benchmark modules that it imports take from a public package: imported names, and
    attributes of `ops` and `df`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("dnagpt_fast", "dnagpt_fast.ops"):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
            found |= public_names(ast.parse((BENCHMARKS / f"{node.module.split('.')[1]}.py").read_text()))
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("ops", "df")
        ):
            found.add(node.attr)
    return found


def test_every_benchmark_is_listed():
    assert {path.name for path in BENCHMARKS.glob("bench_*.py")} == set(MEASURED)


@pytest.mark.parametrize("script", MEASURED)
def test_a_benchmark_calls_what_users_call(script):
    tree = ast.parse((BENCHMARKS / script).read_text())
    exported = set(ops.__all__) | set(dnagpt_fast.__all__)
    assert MEASURED[script] <= exported
    assert MEASURED[script] <= public_names(tree)
    native = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("_native", "native_module")
    ]
    assert script == REPLACES_THE_LAUNCH or not native, f"{script} calls the native module in lines {native}"
