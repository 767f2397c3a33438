"""Debian's bcftools as a judge of what `variants` writes: it reads, checks, queries, filters and indexes every form.

bcftools is a program of its own (`apt-get install bcftools`), newer or older than the htslib inside pysam.
"""

import math
import shutil
import subprocess

import pysam
import pytest
from rich.console import Console

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.model.alleles import AlleleRule
from dnagpt_fast.variants.annotate import NUMBERS, Annotation, annotate
from dnagpt_fast.variants.places import variant_scores
from tests.tiny import load_tiny
from tests.variants.cohort import open_genome, records, write_vcf_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bcftools") is None, reason="no bcftools here: apt-get install bcftools"),
]
TAGS = [*NUMBERS, "DG_FLAG"]


def bcftools(*arguments, code=0):
    """Standard output; nothing may come on standard error, where bcftools complains about headers and types."""
    ran = subprocess.run(["bcftools", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (code, ""), arguments
    return ran.stdout


@pytest.fixture(params=[".vcf", ".vcf.gz", ".bcf"])
def written(request, tmp_path):
    """The cohort with scores in one of the three forms; chr20 of the genome is 20 in the file."""
    model = load_tiny("tiny_bias").model()
    # the cohort's AF is one number for several alternatives, which bcftools norm refuses to split
    rows = [row.replace("AF=0.50;", "") for row in records()]
    source, output = write_vcf_text(tmp_path / "in.vcf", rows), tmp_path / f"out{request.param}"
    with open_genome(tmp_path) as genome:
        rule = AlleleRule.of(model, KmerTokenizer(3))
        what = Annotation(source, str(output), command='dnagpt-fast variants "a b"')
        annotate(model, KmerTokenizer(3), genome, rule, what, console=Console(quiet=True))
    return output


def test_view_reads_every_record_and_keeps_the_tags(written):
    rows = bcftools("view", "-H", written).splitlines()
    assert len(rows) == len(records())
    for before, after in zip(records(), rows, strict=True):
        old, new = before.split("\t"), after.split("\t")
        assert new[:5] == old[:5]
    header = bcftools("view", "-h", written)
    for tag in TAGS:
        kind = "String" if tag == "DG_FLAG" else "Float"
        assert f"##INFO=<ID={tag},Number=A,Type={kind},Description=" in header
    assert "##dnagpt_fastCommand=<ID=dnagpt_fast,Version=" in header


def test_query_gives_the_scores(written, tmp_path):
    rows = bcftools(
        "query", "-f", r"%CHROM\t%POS\t%REF\t%ALT\t%INFO/DG_LLR\t%INFO/DG_FLAG\n", written
    ).splitlines()
    with open_genome(tmp_path) as genome:
        for row in rows:
            contig, pos, reference, alternatives, values, flags = row.split("\t")
            several = [a for a in alternatives.split(",") if a != "."]
            wanted = list(
                variant_scores(
                    load_tiny("tiny_bias").model(), KmerTokenizer(3), genome,
                    [(contig, int(pos) - 1, reference, one) for one in several],
                )
            )  # fmt: skip
            found = values.split(",") if values != "." else ["."] * len(several)
            for text, score in zip(found, wanted, strict=True):
                assert (text == ".") == (score.llr is None), row
                assert text == "." or math.isclose(float(text), score.llr, rel_tol=6e-4, abs_tol=1e-9)
            flagged = ["|".join(score.flags) or "." for score in wanted]
            assert flags == "." or flags.split(",") == flagged


def test_filters_take_the_tags_as_numbers(written):
    below = bcftools("query", "-i", "DG_LLR<0", "-f", r"%INFO/DG_LLR\n", written).splitlines()
    every = bcftools("query", "-f", r"%INFO/DG_LLR\n", written).splitlines()
    assert 0 < len(below) < len(every)
    assert below == [row for row in every if any(one != "." and float(one) < 0 for one in row.split(","))]


def test_norm_checks_the_reference_and_splits_alleles_with_their_tags(written, tmp_path):
    fasta = tmp_path / "named.fa"  # bcftools wants the file's own contig names
    fasta.write_text((tmp_path / "genome.fa").read_text().replace(">chr20", ">20"))
    pysam.faidx(str(fasta))
    for arguments in (("-c", "x"), ("-c", "e", "-m", "-any")):
        ran = subprocess.run(
            ["bcftools", "norm", *arguments, "-f", str(fasta), "-Ov", str(written)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert not [line for line in ran.stderr.splitlines() if not line.startswith("Lines ")], ran.stderr
        rows = [row for row in ran.stdout.splitlines() if not row.startswith("#")]
        assert len(rows) >= len(records())
        if "-m" in arguments:  # Number=A: each record has the value of its own alternative
            for row in rows:
                fields = row.split("\t")
                assert "," not in fields[4]
                values = [part for part in fields[7].split(";") if part.startswith("DG_")]
                assert not [part for part in values if "," in part], row


def test_index_and_region(written, tmp_path):
    if written.suffix == ".vcf":
        return  # plain text has no index
    some = bcftools("view", "-H", "-r", "chr1:200-260", written)
    again = tmp_path / f"again{''.join(written.suffixes)}"
    shutil.copy(written, again)
    bcftools("index", again)
    assert bcftools("view", "-H", "-r", "chr1:200-260", again) == some
    assert len(some.splitlines()) == 4
    if written.suffix == ".gz":  # from the index that the command wrote; that of .bcf has no contig names
        assert int(bcftools("index", "-n", written)) == len(records())
