"""ops.report: what the machine runs."""

from dnagpt_fast import ops


def test_report_follows_the_table():
    with ops.dispatch.using(gc_count="reference"):
        report = ops.report()
    assert report["implementations"]["gc_count"]["cpu"] == "reference"
    assert report["implementations"]["kmer_tokenize"]["cpu"] == "native"
    assert report["cpu_isa"] in ("scalar", "avx2", "avx512", "neon")
    assert isinstance(report["cuda_archs"], list)
