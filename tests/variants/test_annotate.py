"""`dnagpt-fast variants`: its output in every format, its errors, and resuming a killed job."""

import gzip
import json
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pysam.bcftools
import pytest
from rich.console import Console

import dnagpt_fast as df
from dnagpt_fast import Genome, KmerTokenizer
from dnagpt_fast.input_files import InputFileError
from dnagpt_fast.model.alleles import AlleleRule
from dnagpt_fast.variants import annotate as annotate_module
from dnagpt_fast.variants.annotate import NUMBERS, TAGS, Annotation, annotate
from dnagpt_fast.variants.journal import JournalError
from dnagpt_fast.variants.places import VariantError, variant_scores
from dnagpt_fast.variants.vcf import VcfFile
from tests.tiny import load_tiny
from tests.variants.cohort import CONTIGS, HEADER, base, line, open_genome, other, records, write_vcf_text


@pytest.fixture(scope="module")
def model():
    return load_tiny("tiny_bias").model()


@pytest.fixture
def genome(tmp_path):
    with open_genome(tmp_path) as opened:
        yield opened


def run(model, genome, source, output, settings=None, **what):
    rule = AlleleRule.of(model, KmerTokenizer(3), **(settings or {}))
    given = Annotation(source, str(output), **what)
    return annotate(model, KmerTokenizer(3), genome, rule, given, console=Console(quiet=True))


def body(path):
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return [row for row in text.splitlines() if not row.startswith("#")]


def tags(row):
    pairs = (part.split("=", 1) for part in row.split("\t")[7].split(";") if "=" in part)
    return {name: value for name, value in pairs if name in TAGS}


def test_scores_are_added_to_info_and_all_other_bytes_are_kept(model, genome, tmp_path):
    source = write_vcf_text(tmp_path / "in.vcf")
    summary = run(model, genome, source, tmp_path / "out.vcf", command='variants "x"')
    rows = body(tmp_path / "out.vcf")
    assert (summary.records, summary.alternatives) == (12, 15)
    for before, after in zip(records(), rows, strict=True):
        old, new = before.split("\t"), after.split("\t")
        assert new[:7] + new[8:] == old[:7] + old[8:]
        assert old[7] == "." or new[7] == old[7] or new[7].startswith(old[7] + ";")
    scores = iter(
        variant_scores(
            model, KmerTokenizer(3), genome,
            [
                (fields[0], int(fields[1]) - 1, fields[3], alternative)
                for fields in (row.split("\t") for row in records())
                for alternative in fields[4].split(",")
                if alternative != "."
            ],
        )
    )  # fmt: skip
    flagged = []
    for before, row in zip(records(), rows, strict=True):
        alternatives = [a for a in before.split("\t")[4].split(",") if a != "."]
        found = [next(scores) for _ in alternatives]
        flagged += [flag for score in found for flag in score.flags]
        wanted = {
            name: [getattr(score, field) for score in found]
            for name, field in zip(
                NUMBERS, ("llr", "llr_forward", "llr_reverse", "sd", "conditional"), strict=True
            )
        }
        got = tags(row)
        for name, values in wanted.items():
            if all(value is None for value in values):
                assert name not in got
                continue
            for text, value in zip(got[name].split(","), values, strict=True):
                assert (
                    text == "." if value is None else float(text) == pytest.approx(value, rel=6e-4, abs=1e-9)
                )
        flags = got.get("DG_FLAG", ",".join(["."] * len(alternatives)))
        assert flags.split(",") == ["|".join(score.flags) or "." for score in found] or not alternatives
    assert flagged == ["EDGE", "SYMBOLIC", "SYMBOLIC", "STR", "LONG", "N", "N"]
    assert summary.flags == {"EDGE": 1, "SYMBOLIC": 2, "STR": 1, "LONG": 1, "N": 2}
    header = VcfFile(tmp_path / "out.vcf").header
    assert [row for row in header if row in HEADER.splitlines()] == HEADER.splitlines()
    assert any(row.startswith("##dnagpt_fastCommand=<") and "Phases=3" in row for row in header)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("ending", [".vcf", ".vcf.gz", ".bcf"])
@pytest.mark.parametrize("kind", ["vcf", "bgzip", "gzip", "bcf", "crlf"])
def test_every_format_is_converted_to_every_format_and_bcftools_reads_it(
    model, genome, tmp_path, kind, ending
):
    source = write_vcf_text(tmp_path / "in.vcf", end="\r\n" if kind == "crlf" else "\n")
    run(model, genome, source, tmp_path / "plain.vcf")
    if kind == "gzip":
        source = write_vcf_text(tmp_path / "in.vcf.gz")
    elif kind == "bgzip":
        pysam.tabix_compress(str(source), str(tmp_path / "in.vcf.gz"))
        source = tmp_path / "in.vcf.gz"
    elif kind == "bcf":
        pysam.bcftools.view("-Ob", "-o", str(tmp_path / "in.bcf"), str(source), catch_stdout=False)
        source = tmp_path / "in.bcf"
    output = tmp_path / f"out{ending}"
    run(model, genome, source, output)
    query = ("-f", "%CHROM\\t%POS\\t%ALT\\t%INFO/DG_LLR\\t%INFO/DG_SD\\t%INFO/DG_FLAG\\t%INFO/AF\n")
    wanted = pysam.bcftools.query(*query, str(tmp_path / "plain.vcf"))
    assert len(wanted.splitlines()) == 12
    assert pysam.bcftools.query(*query, str(output)) == wanted
    if ending == ".vcf":
        assert len(list(tmp_path.glob("out*"))) == 1
        return
    some = pysam.bcftools.view("-H", "-r", "chr1:200-260", str(output)).splitlines()
    assert len(some) == 4
    found = pysam.bcftools.view("-H", "-i", "DG_LLR<0", str(output)).splitlines()
    assert 0 < len(found) < 12


def test_tables_have_a_row_for_each_alternative(model, genome, tmp_path):
    source = write_vcf_text(tmp_path / "in.vcf")
    for ending in (".tsv", ".parquet"):
        run(model, genome, source, tmp_path / f"out{ending}")
    tsv = pd.read_csv(tmp_path / "out.tsv", sep="\t", dtype={"contig": str}, keep_default_na=True)
    parquet = pd.read_parquet(tmp_path / "out.parquet")
    assert list(tsv.columns) == list(parquet.columns) == [
        "contig", "pos", "id", "ref", "alt", "llr", "llr_fwd", "llr_rev", "sd", "cond", "flag"
    ]  # fmt: skip
    assert len(tsv) == len(parquet) == 15
    assert tsv["pos"].tolist() == parquet["pos"].tolist()
    np.testing.assert_allclose(tsv["llr"], parquet["llr"], rtol=6e-4, atol=1e-9)
    assert tsv["flag"].fillna("").tolist() == parquet["flag"].tolist()


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([line("chr1", 200, "AAAA", "A")], HEADER, r"line 9: chr1:200: the reference allele is 'AAAA', but .* has"),
        ([line("chr1", 899, "ACGT", "A")], HEADER, "line 9: chr1:899.*past its end, 900"),
        ([line("chr1", 9, 1, "T"), line("chr7", 9, "A", "T")], HEADER, "line 10: no contig 'chr7'"),
        ([line("chr1", 200, 1, "T")[:-4]], HEADER, "line 9: 10 tab-separated columns: the header has 11"),
        (["chr1 200 . A T"], HEADER, "line 9: 1 tab-separated column"),
        ([line("chr1", 200, 1, "T").replace("200", "2OO", 1)], HEADER, "line 9: POS is '2OO'"),
        ([line("chr1", 200, ".", "T")], HEADER, "line 9: REF is '.'"),
        (records(), "", "line 1: .*begins with ##fileformat"),
        (records(), HEADER.replace("#CHROM", "#CHR"), "line 8: wanted the column names"),
        (records(), HEADER.replace("\t", " "), "line 8: wanted the column names"),
        (records(), HEADER.replace("length=900", "length=901"), "chr1 has 901 bp .*, but 900 bp in .*same assembly"),
        (records(), HEADER.replace("##INFO=<ID=AF", "##INFO=<ID=DG_LLR"), r"has the tag\(s\) DG_LLR already"),
        (["chr1\t\0"], HEADER, ":9: a zero byte"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_before_anything_is_scored(model, genome, tmp_path, rows, header, message):
    source = write_vcf_text(tmp_path / "in.vcf", rows, header)
    with pytest.raises(InputFileError, match=message):
        run(model, genome, source, tmp_path / "out.vcf.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["genome.fa", "in.vcf"]


def test_variants_of_another_genome_can_be_flagged(model, genome, tmp_path):
    wrong = other(base("chr1", 200))
    rows = [line("chr1", 200, wrong, "<DEL>,AC,G"), line("chr7", 9, "A", "T"), line("chr1", 899, "ACGT", "A")]
    run(model, genome, write_vcf_text(tmp_path / "in.vcf", rows), tmp_path / "out.vcf", on_mismatch="flag")
    flags = [tags(row) for row in body(tmp_path / "out.vcf")]
    assert flags == [{"DG_FLAG": "REF,REF,REF"}, {"DG_FLAG": "CONTIG"}, {"DG_FLAG": "REF"}]
    assert "##contig=<ID=chr7>" in VcfFile(tmp_path / "out.vcf").header


def test_tags_of_an_earlier_run_are_replaced_on_request(model, genome, tmp_path):
    source = write_vcf_text(tmp_path / "in.vcf")
    run(model, genome, source, tmp_path / "one.vcf")
    with pytest.raises(VariantError, match="--overwrite-tags"):
        run(model, genome, tmp_path / "one.vcf", tmp_path / "two.vcf")
    settings = {"phases": 1, "context_bp": 40}
    run(model, genome, tmp_path / "one.vcf", tmp_path / "two.vcf", settings, overwrite_tags=True)
    run(model, genome, source, tmp_path / "once.vcf", settings)
    assert (tmp_path / "two.vcf").read_text() == (tmp_path / "once.vcf").read_text()


@pytest.mark.parametrize("bcf", [False, True])
def test_damaged_files_are_errors(model, genome, tmp_path, bcf):
    plain = write_vcf_text(tmp_path / "plain.vcf", records() * 200)
    if bcf:
        source = tmp_path / "in.bcf"
        pysam.bcftools.view("-Ob", "-o", str(source), str(plain), catch_stdout=False)
    else:
        source = tmp_path / "in.vcf.gz"
        pysam.tabix_compress(str(plain), str(source))
    whole = source.read_bytes()
    for damaged in (whole[:-28], whole[: len(whole) // 2], whole[:700] + bytes(40) + whole[740:]):
        source.write_bytes(damaged)
        with pytest.raises(InputFileError, match=r"ends early|damaged|cannot be read"):
            run(model, genome, source, tmp_path / "out.vcf")
    source.write_bytes(b"")
    with pytest.raises(VariantError, match="no header"):
        run(model, genome, source, tmp_path / "out.vcf")
    source.write_bytes(gzip.compress(plain.read_bytes())[:-300])
    with pytest.raises(InputFileError, match="ends early"):
        run(model, genome, source, tmp_path / "out.vcf")


def test_several_alternatives_have_the_scores_of_split_records(model, genome, tmp_path):
    bases = [base("chr1", 200), base("chr1", 200) + "GATTACA", other(base("chr1", 200)), "<DEL>"]
    joined = [line("chr1", 200, 1, ",".join(bases))]
    for name, rows in (("joined", joined), ("split", [line("chr1", 200, 1, text) for text in bases])):
        run(model, genome, write_vcf_text(tmp_path / f"{name}.vcf", rows), tmp_path / f"{name}_out.vcf")
    (found,) = (tags(row) for row in body(tmp_path / "joined_out.vcf"))
    split = [tags(row) for row in body(tmp_path / "split_out.vcf")]
    assert set(found) == {tag for one in split for tag in one}
    for tag in found:
        assert found[tag].split(",") == [one.get(tag, ".") for one in split]
    assert split[0]["DG_LLR"] == "0"


def test_unsorted_files_keep_their_order_and_get_no_index(model, genome, tmp_path):
    rows = [records()[i] for i in (9, 2, 1, 10, 5)]
    run(model, genome, write_vcf_text(tmp_path / "in.vcf", rows), tmp_path / "out.vcf.gz")
    assert [row.split("\t")[:5] for row in body(tmp_path / "out.vcf.gz")] == [
        row.split("\t")[:5] for row in rows
    ]
    assert not (tmp_path / "out.vcf.gz.tbi").exists()


def test_a_file_without_records_or_contig_lines(model, genome, tmp_path):
    header = "".join(row for row in HEADER.splitlines(keepends=True) if "##contig" not in row)
    assert run(model, genome, write_vcf_text(tmp_path / "a.vcf", [], header), tmp_path / "a.bcf").records == 0
    run(model, genome, write_vcf_text(tmp_path / "b.vcf", records(), header), tmp_path / "b.bcf")
    found = VcfFile(tmp_path / "b.bcf")
    assert found.contigs == {"chr1": 900, "20": 500}
    assert len(list(found.records())) == 12


def many(count):
    rng = np.random.default_rng(0)
    places = np.sort(rng.integers(60, 280, count)).tolist()
    return [line("chr1", pos, 1, other(base("chr1", pos), 1 + i % 3)) for i, pos in enumerate(places)]


def test_a_killed_job_is_resumed_and_gives_the_same_bytes(model, genome, tmp_path, monkeypatch):
    monkeypatch.setattr(annotate_module, "BLOCK_RECORDS", 4)
    source = write_vcf_text(tmp_path / "in.vcf", many(22))
    run(model, genome, source, tmp_path / "whole.vcf")
    calls = []

    def dies(*arguments):
        calls.append(len(arguments[3]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return annotate_module_score(*arguments)

    annotate_module_score = annotate_module.score_chunk
    monkeypatch.setattr(annotate_module, "score_chunk", dies)
    output = tmp_path / "out.vcf"
    with pytest.raises(KeyboardInterrupt):
        run(model, genome, source, output)
    folder = tmp_path / ".out.vcf.scores"
    assert len((folder / "process-0.jsonl").read_bytes().splitlines()) == 3
    with open(folder / "process-0.jsonl", "ab") as file:
        file.write(b'{"block": 3, "scores": [[[0.1, ')  # an incomplete line, as a kill leaves it
    assert not output.exists()
    with pytest.raises(JournalError, match="continue it with --resume"):
        run(model, genome, source, output)
    with pytest.raises(JournalError, match="is of another job: rule was"):
        run(model, genome, source, output, {"phases": 1}, resume=True)
    monkeypatch.setattr(annotate_module, "score_chunk", annotate_module_score)
    changed = write_vcf_text(tmp_path / "changed.vcf", many(21))
    with pytest.raises(JournalError, match="is of another job: source was"):
        run(model, genome, changed, output, resume=True)
    moved = source.rename(tmp_path / "moved.vcf")
    run(model, genome, moved, output, resume=True)
    assert output.read_text() == (tmp_path / "whole.vcf").read_text()
    assert not folder.exists()
    with pytest.raises(JournalError, match="no unfinished job"):
        run(model, genome, moved, output, resume=True)


def test_a_file_is_scored_in_bounded_pieces(model, genome, tmp_path, monkeypatch):
    monkeypatch.setattr(annotate_module, "BLOCK_RECORDS", 5)
    source = write_vcf_text(tmp_path / "in.vcf", many(12))
    seen = []
    score = annotate_module.score_chunk
    monkeypatch.setattr(annotate_module, "score_chunk", lambda *a: seen.append(len(a[3])) or score(*a))
    run(model, genome, source, tmp_path / "five.vcf", max_tokens=90)
    assert seen == [5, 5, 2]
    monkeypatch.setattr(annotate_module, "BLOCK_RECORDS", 128)
    run(model, genome, source, tmp_path / "all.vcf")
    assert (tmp_path / "five.vcf").read_text() == (tmp_path / "all.vcf").read_text()


def test_the_public_function(model, genome):
    tokenizer, pos = KmerTokenizer(3), 200
    variant = ("chr1", pos - 1, base("chr1", pos), other(base("chr1", pos)))
    (one,) = df.variant_scores(model, tokenizer, genome, [variant])
    assert one.llr is not None
    short = ("1", pos - 1, base("chr1", pos).lower(), other(base("chr1", pos)).lower())
    assert list(df.variant_scores(model, tokenizer, genome, [short] * 300)) == [one] * 300
    assert next(df.variant_scores(model, tokenizer, genome, [("20", 0, "A", "*")])).flags == ("SYMBOLIC",)
    with pytest.raises(VariantError, match="variant 1: chr1:200: the reference allele is"):
        list(
            df.variant_scores(model, tokenizer, genome, [variant, ("chr1", pos - 1, other(variant[2]), "A")])
        )
    with pytest.raises(ValueError, match="on_mismatch = 'skip'"):
        df.variant_scores(model, tokenizer, genome, [variant], on_mismatch="skip")


def test_a_genome_and_its_other_strand_give_the_same_scores(model, genome, tmp_path):
    from dnagpt_fast.vocab import reverse_complement

    path = tmp_path / "other.fa"
    path.write_text("".join(f">{name}\n{reverse_complement(bases)}\n" for name, bases in CONTIGS.items()))
    variants, mirrored = [], []
    for row in records():
        contig, pos, _, reference, alternatives = row.split("\t")[:5]
        length = len(CONTIGS[contig if contig.startswith("chr") else f"chr{contig}"])
        for alternative in alternatives.upper().split(","):
            if set(alternative) <= set("ACGT"):
                variants.append((contig, int(pos) - 1, reference, alternative))
                start = length - (int(pos) - 1) - len(reference)
                alleles = map(reverse_complement, (reference, alternative))
                mirrored.append((contig, start, *alleles))
    assert len(variants) == 12
    with Genome.open(path) as turned:
        forward = list(variant_scores(model, KmerTokenizer(3), genome, variants))
        backward = list(variant_scores(model, KmerTokenizer(3), turned, mirrored))
    for one, two in zip(forward, backward, strict=True):
        assert (one.llr, one.llr_forward, one.llr_reverse, one.sd, one.conditional, one.flags) == (
            two.llr, two.llr_reverse, two.llr_forward, two.sd, two.conditional, two.flags
        )  # fmt: skip


def test_journals_are_json_lines(model, genome, tmp_path, monkeypatch):
    source = write_vcf_text(tmp_path / "in.vcf", many(3))
    seen = []
    remove = annotate_module.Journal.remove

    def keep(self):
        seen.extend(
            json.loads(row) for row in (self.folder.path / "process-0.jsonl").read_text().splitlines()
        )
        remove(self)

    monkeypatch.setattr(annotate_module.Journal, "remove", keep)
    run(model, genome, source, tmp_path / "out.vcf")
    assert [one["block"] for one in seen] == [0]
    assert len(seen[0]["scores"]) == 3


@pytest.mark.parametrize("name", ["pipe.vcf", "pipe.tsv"])
def test_a_pipe_gets_what_a_file_would_get(model, genome, tmp_path, name):
    source = write_vcf_text(tmp_path / "in.vcf")
    run(model, genome, source, tmp_path / f"file{Path(name).suffix}")
    os.mkfifo(tmp_path / name)
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.append((tmp_path / name).read_bytes()))
    reader.start()
    run(model, genome, source, tmp_path / name)
    reader.join(timeout=60)
    assert came == [(tmp_path / f"file{Path(name).suffix}").read_bytes()]
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_a_pipe_gets_no_compressed_file_and_no_resumed_one(model, genome, tmp_path):
    source = write_vcf_text(tmp_path / "in.vcf")
    for name in ("pipe.vcf", "pipe.bcf"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=r"pipe.bcf: a pipe or device gets plain text"):
        run(model, genome, source, tmp_path / "pipe.bcf")
    with pytest.raises(ValueError, match=r"pipe.vcf: --resume and several processes keep"):
        run(model, genome, source, tmp_path / "pipe.vcf", resume=True)
