"""Calibrated scores: the statistics by class against closed forms and brute force, and what has no class says so."""

import json
import math
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from dnagpt_fast import Genome, KmerTokenizer
from dnagpt_fast.cli import main
from dnagpt_fast.genome.selection import places_of
from dnagpt_fast.model.alleles import AlleleRule, AlleleScore
from dnagpt_fast.model.haplotypes import Site, difference
from dnagpt_fast.training.job_folder import JournalError
from dnagpt_fast.training.row_journal import RowJournal
from dnagpt_fast.variants import annotate as annotate_module
from dnagpt_fast.variants import neutral as neutral_module
from dnagpt_fast.variants.annotate import Annotation, annotate
from dnagpt_fast.variants.calibration import (
    LEAST,
    LENGTHS,
    Calibration,
    CalibrationError,
    Spread,
    class_of,
)
from dnagpt_fast.variants.neutral import calibrate, random_sites, variants_drawn
from dnagpt_fast.variants.places import variant_scores
from dnagpt_fast.weights.forms import save_model
from tests.model.test_alleles import chain_as_model
from tests.tiny import load_tiny
from tests.variants.cohort import base, line, other, write_genome, write_vcf_text

TRANSITION = np.random.default_rng(1).dirichlet(np.full(4, 2.0), 4)


@pytest.fixture
def genome(tmp_path):
    draw = np.random.default_rng(5)
    (tmp_path / "g.fa").write_text(
        "".join(
            f">c{i}\n{''.join(draw.choice(list('ACGT'), 900))}{'N' * 30}{''.join(draw.choice(list('ACGT'), 600))}\n"
            for i in range(2)
        )
    )
    with Genome.open(tmp_path / "g.fa") as opened:
        yield opened


@pytest.fixture(scope="module")
def chain():
    """(model, tokenizer, rule) of a k = 1 model that is a Markov chain."""
    tokenizer = KmerTokenizer(1)
    model = chain_as_model(tokenizer, TRANSITION)
    return model, tokenizer, AlleleRule.of(model, tokenizer, context_bp=6, after_bp=4)


def closed_form(site):
    """The mean over both strands of log P(with ALT) - log P(with REF) of the chain, over the scored bases."""

    def log_p(text):
        return sum(math.log(TRANSITION["ACGT".index(a)]["ACGT".index(b)]) for a, b in pairwise(text))

    ratios = []
    for side in (site, site.reverse_complement()):
        where = difference(side)
        start, stop = where.first - 1, where.first + where.longest + 4
        alternative, reference = (
            (side.left + allele + side.right)[start:stop] for allele in (side.alternative, side.reference)
        )
        ratios.append(log_p(alternative) - log_p(reference))
    return sum(ratios) / 2


def test_a_chains_statistics_are_those_of_its_closed_form(chain, genome):
    model, tokenizer, rule = chain
    # away from the unknown bases, which the closed form has no letter for
    places = places_of(genome, ["c0:0-840", "c1:0-840"])
    settings, seen = {"sites": 60, "indels": 5, "seed": 3}, []
    found = calibrate(model, tokenizer, genome, places, rule, **settings, progress=seen.append)
    assert sum(seen) == variants_drawn(60, 5) == 250
    wanted = defaultdict(list)
    for site in random_sites(genome, places, rule, 1, **settings):
        kind, name = class_of(site, 2)
        if difference(site).longest > 39:  # LONG: with 30 bases on each side it does not fit into 99 tokens
            continue
        wanted[kind].append(closed_form(site))
        wanted[name].append(closed_form(site))
    assert {
        f"{kind} {lengths}" for kind in ("INS", "DEL") for lengths in ("1", "2", "3", "4-5", "6-10")
    } <= set(wanted)
    assert 5 * (len(LENGTHS) - 1) <= len(wanted["DEL"]) < 5 * len(LENGTHS)
    assert len(wanted["SNV"]) == 180
    several = 0
    for name, values in wanted.items():
        if len(values) < 2:
            assert name not in found.classes
            continue
        spread, several = found.classes[name], several + 1
        assert spread.count == len(values)
        assert spread.mean == pytest.approx(np.mean(values), abs=1e-4)
        assert spread.sd == pytest.approx(np.std(values, ddof=1), abs=1e-4)
        if "[" in name:  # the score of a chain is a function of the trinucleotide and the alternative
            assert spread.sd == pytest.approx(0, abs=1e-4)
    assert several > 50
    # what is left of a chain's score of a single base is 0, from another example of its class
    text = genome.sequence("c0", 0, 840)
    sites = (
        (at, Site(text[:at], text[at], new, text[at + 1 :]))
        for at in range(300, 800)
        for new in "ACGT"
        if new != text[at]
    )
    at, site = next((at, site) for at, site in sites if class_of(site, 2)[1] in found.classes)
    name, variant = class_of(site, 2)[1], ("c0", at, site.reference, site.alternative)
    (score,) = variant_scores(model, tokenizer, genome, [variant], context_bp=6, after_bp=4)
    only = Calibration({}, {name: replace(found.classes[name], count=LEAST, sd=0.5)})
    assert score.llr != pytest.approx(0, abs=1e-2)
    assert only.apply(site, score, 2).calibrated == pytest.approx(0, abs=1e-4)


def test_the_same_seed_gives_the_same_table(chain, genome, tmp_path):
    model, tokenizer, rule = chain
    settings = {"sites": 3, "indels": 2}
    found = calibrate(model, tokenizer, genome, places_of(genome), rule, **settings)
    assert calibrate(model, tokenizer, genome, places_of(genome), rule, **settings, max_tokens=300) == found
    assert calibrate(model, tokenizer, genome, places_of(genome), rule, **settings, seed=1) != found
    part = calibrate(model, tokenizer, genome, places_of(genome, ["c1:100-800"]), rule, **settings)
    assert part.classes != found.classes
    found.write(tmp_path / "x.json")
    again = Calibration.read(tmp_path / "x.json")
    assert again == found
    assert again.content_hash == found.content_hash != part.content_hash


@pytest.mark.parametrize(
    ("site", "both", "forward"),
    [
        (Site("A", "C", "T", "G"), "A[C>T]G", "A[C>T]G"),
        (Site("C", "G", "A", "T"), "A[C>T]G", "C[G>A]T"),
        (Site("A", "CA", "TA", "G"), "A[C>T]A", "A[C>T]A"),  # written with one base too many
        (Site("GA", "A", "AC", "GTT"), "INS 1", "INS 1"),
        (Site("GA", "ACGTAC", "A", "GTT"), "DEL 4-5", "DEL 4-5"),
        (Site("GA", "AC", "GT", "GTT"), None, None),  # two bases
        (Site("GA", "AC", "GTT", "GTT"), None, None),  # replaced and longer
        (Site("N", "C", "T", "G"), None, None),
        (Site("", "C", "T", "G"), None, None),
        (Site("A", "C", "C", "G"), None, None),
        (Site("GT", "A", "A" + "CG" * 26, "GTT"), None, None),  # 52 bases
    ],
)
def test_classes(site, both, forward):
    for strands, wanted in ((2, both), (1, forward)):
        found = class_of(site, strands)
        assert (None if found is None else found[1]) == wanted
    turned = class_of(site.reverse_complement(), 2)
    assert turned == class_of(site, 2)


def test_a_class_with_few_examples_is_replaced_and_flagged():
    classes = {
        "A[C>T]G": Spread(LEAST, -1.0, 0.5),
        "A[C>A]G": Spread(LEAST - 1, -9.0, 9.0),
        "SNV": Spread(500, -3.0, 2.0),
        "INS 1": Spread(LEAST - 1, 0.0, 1.0),
        "INS": Spread(LEAST - 1, 0.0, 1.0),
        "DEL 1": Spread(LEAST, -2.0, 0.0),
    }
    table = Calibration({}, classes)
    cases = [
        (Site("A", "C", "T", "G"), -4.0, (), (-3.0, -6.0, ())),
        (Site("A", "C", "A", "G"), -4.0, (), (-1.0, -0.5, ("KIND",))),
        (Site("C", "C", "A", "C"), -4.0, (), (-1.0, -0.5, ("KIND",))),  # a class without any example
        (Site("G", "A", "AC", "G"), -4.0, (), (None, None, ("UNCALIBRATED",))),
        (Site("G", "AC", "A", "G"), -4.0, (), (-2.0, None, ())),  # no spread, no z
        (Site("G", "AC", "A", "G"), -4.0, ("STR",), (None, None, ("STR", "UNCALIBRATED"))),
        (Site("G", "AC", "GT", "G"), -4.0, (), (None, None, ("UNCALIBRATED",))),
        (Site("A", "C", "T", "G"), None, ("EDGE",), (None, None, ("EDGE",))),
    ]
    for site, llr, flags, wanted in cases:
        found = table.apply(site, AlleleScore(llr=llr, flags=flags), 2)
        assert (found.calibrated, found.z, found.flags) == wanted
        assert found.llr == llr


@pytest.fixture
def inputs(tmp_path):
    save_model(load_tiny("tiny_bias").model(), KmerTokenizer(3), tmp_path / "m", "folder")
    write_genome(tmp_path)
    snvs = [line("chr1", pos, 1, other(base("chr1", pos))) for pos in (100, 200, 300)]
    write_vcf_text(
        tmp_path / "in.vcf", [*snvs, line("chr1", 350, 2, "GG"), line("chr1", 400, 3, base("chr1", 400))]
    )
    return tmp_path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    said = capsys.readouterr()
    return stopped.value.code, said.out, said.err


RULE = ("--context-bp", 30, "--after-bp", 30, "--phases", 1)
SOME = ("--sites", 12, "--indels", 2)


def test_the_commands(capsys, inputs, monkeypatch):
    model, fasta, table = inputs / "m", inputs / "genome.fa", inputs / "x.json"
    code, out, err = run(capsys, "calibrate", model, fasta, "-o", table, *RULE, "--sites", 12, "--indels", 2)
    assert (code, "64 random variants" in out) == (0, True), err
    calibrated = ("variants", model, fasta, inputs / "in.vcf", "--calibrate", table, *RULE)
    code, _, err = run(capsys, *calibrated, "-o", inputs / "out.vcf")
    assert code == 0, err
    text = (inputs / "out.vcf").read_text()
    for tag in ("DG_CLLR", "DG_Z"):
        assert f'##INFO=<ID={tag},Number=A,Type=Float,Description="' in text
    assert f'Calibration="sha256:{Calibration.read(table).content_hash}"' in text
    assert run(capsys, *calibrated, "-o", inputs / "out.tsv")[0] == 0
    rows = pd.read_csv(inputs / "out.tsv", sep="\t")
    classes = json.loads(table.read_text())["classes"]
    assert classes["SNV"]["count"] == 36
    for row in rows[:3].itertuples():
        assert row.flag == "KIND"
        assert row.cllr == pytest.approx(row.llr - classes["SNV"]["mean"], abs=2e-3)
        assert row.z == pytest.approx(row.cllr / classes["SNV"]["sd"], rel=2e-3)
        assert f"DG_CLLR={row.cllr:.4g}" in text
    assert rows["flag"][3:].tolist() == ["UNCALIBRATED", "STR|UNCALIBRATED"]
    assert rows["cllr"][3:].isna().all()
    assert run(capsys, *calibrated, "-o", inputs / "out.parquet")[0] == 0
    assert pd.read_parquet(inputs / "out.parquet").columns.tolist() == rows.columns.tolist()
    # without the option nothing of it is there
    assert run(capsys, *calibrated[:4], *RULE, "-o", inputs / "plain.vcf")[0] == 0
    plain = (inputs / "plain.vcf").read_text()
    assert "DG_CLLR" not in plain
    assert 'Calibration="none"' in plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: (inputs / "genome.fa").write_text((inputs / "genome.fa").read_text().replace("A", "C", 1)),
         "was made for another job: genome was"),
        (lambda inputs: [*RULE[:-1], 3], "was made for another job: rule was"),
        (lambda inputs: (inputs / "x.json").write_text("[]"), "wanted a file of `dnagpt-fast calibrate`"),
        (lambda inputs: (inputs / "x.json").write_text('{"format": 1, "about": {}, "classes": {"SNV": {"count": 3}}}'),
         "class 'SNV' is damaged"),
        (lambda inputs: (inputs / "x.json").write_text(
            '{"format": 1, "about": {}, "classes": {"SNV": {"count": 3, "mean": NaN, "sd": 1}}}'), "damaged"),
    ],
    ids=["genome", "rule", "no object", "missing", "not a number"],
)  # fmt: skip
def test_another_model_genome_or_rule_is_refused(capsys, inputs, change, message):
    model, fasta, table = inputs / "m", inputs / "genome.fa", inputs / "x.json"
    assert run(capsys, "calibrate", model, fasta, "-o", table, *RULE, "--sites", 2, "--indels", 2)[0] == 0
    changed = change(inputs)
    rule = changed if isinstance(changed, list) else RULE
    code, _, err = run(
        capsys, "variants", model, fasta, inputs / "in.vcf", "--calibrate", table, *rule, "-o", inputs / "out.vcf"
    )  # fmt: skip
    assert (code, message in err) == (1, True), err
    assert not (inputs / "out.vcf").exists()


def test_a_resumed_job_keeps_its_calibration(inputs, monkeypatch):
    model, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    rule = AlleleRule.of(model, tokenizer, context_bp=30, after_bp=30, phases=1)
    monkeypatch.setattr(annotate_module, "BLOCK_RECORDS", 2)
    quiet = Console(quiet=True)
    with Genome.open(inputs / "genome.fa") as genome:
        table = calibrate(model, tokenizer, genome, places_of(genome), rule, sites=12, indels=2)
        table.write(inputs / "x.json")

        def job(output, **more):
            what = Annotation(inputs / "in.vcf", str(inputs / output), calibration=inputs / "x.json", **more)
            annotate(model, tokenizer, genome, rule, what, console=quiet)

        job("whole.vcf")
        append = annotate_module.Journal.append

        def stopping(self, rank, block, scores):
            if block == 1:
                raise KeyboardInterrupt
            append(self, rank, block, scores)

        with monkeypatch.context() as patch:
            patch.setattr(annotate_module.Journal, "append", stopping)
            with pytest.raises(KeyboardInterrupt):
                job("out.vcf")
        replace(table, about={**table.about, "seed": 1}).write(inputs / "x.json")
        with pytest.raises(JournalError, match="calibration was"):
            job("out.vcf", resume=True)
        table.write(inputs / "x.json")
        job("out.vcf", resume=True)
        assert (inputs / "out.vcf").read_text() == (inputs / "whole.vcf").read_text()
        (score,) = variant_scores(
            model, tokenizer, genome, [("chr1", 99, base("chr1", 100), other(base("chr1", 100)))],
            context_bp=30, after_bp=30, phases=1, calibration=table,
        )  # fmt: skip
        assert f"DG_CLLR={score.calibrated:.4g}" in (inputs / "out.vcf").read_text()
        with pytest.raises(CalibrationError, match="rule was"):
            variant_scores(model, tokenizer, genome, [], calibration=table)


def test_what_cannot_be_drawn_is_named(chain, tmp_path):
    model, tokenizer, rule = chain
    (tmp_path / "n.fa").write_text(f">n\n{'N' * 500}ACGTTGCA\n")
    with Genome.open(tmp_path / "n.fa") as genome:
        with pytest.raises(ValueError, match="random places in a row were unknown"):
            calibrate(model, tokenizer, genome, places_of(genome), rule, sites=2, indels=2)
        with pytest.raises(ValueError, match="sites = 1: wanted at least 2"):
            calibrate(model, tokenizer, genome, places_of(genome), rule, sites=1)
        other_rule = AlleleRule.of(model, tokenizer, "next-token", context_bp=6)
        with pytest.raises(ValueError, match="has no DG_LLR"):
            calibrate(model, tokenizer, genome, places_of(genome), other_rule)


def test_a_killed_command_is_resumed_and_gives_the_same_bytes(capsys, inputs, monkeypatch):
    def command(output, *more):
        return ("calibrate", inputs / "m", inputs / "genome.fa", "-o", inputs / output, *RULE, *SOME, *more)

    assert run(capsys, *command("whole.json"))[0] == 0
    append, asked = RowJournal.append, []

    def stopping(self, row):
        if self.count == 40:
            raise KeyboardInterrupt
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(neutral_module, "CHUNK", 12)
        patch.setattr(RowJournal, "append", stopping)
        assert run(capsys, *command("x.json"))[0] == 130
    assert not (inputs / "x.json").exists()
    assert "continue it with --resume" in run(capsys, *command("x.json"))[2]
    assert "seed was 0, is 1" in run(capsys, *command("x.json", "--seed", 1, "--resume"))[2]
    monkeypatch.setattr(
        RowJournal, "append", lambda self, row: (asked.append(self.count), append(self, row))[1]
    )
    assert run(capsys, *command("x.json", "--resume"))[0] == 0
    assert asked == list(range(40, 64))
    assert (inputs / "x.json").read_bytes() == (inputs / "whole.json").read_bytes()
    assert not list(inputs.glob(".x.json.*"))
    assert "wanted with -o FILE" in run(capsys, *command("y")[:4], "/dev/stdout", "--resume")[2]
