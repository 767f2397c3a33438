"""The suites of likelihoods, with models whose answers are known: variants, mpra, zero-shot, lm."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import spearmanr

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.genome.interval_files import InputFileError
from dnagpt_fast.suites import lm, mpra, variants, zero_shot
from dnagpt_fast.suites.job import Choices, evaluate
from dnagpt_fast.suites.scored import CHAIN, CPG, cross_fitted
from dnagpt_fast.suites.task import FROZEN, LIKELIHOOD, Source
from tests.suites.benchmark_data import bases, small_model

RNG = np.random.default_rng(8)
TEXT = bases(RNG, 60_000, (0.3, 0.2, 0.2, 0.3))


class Oracle:
    """Knows the genome: texts of it are likelier than others by their longest run of known 12-mers."""

    name, layers = "oracle", 1

    def __init__(self) -> None:
        self.known = {TEXT[i : i + 12] for i in range(len(TEXT) - 11)}

    def log_likelihoods(self, texts):
        found = [sum(text[i : i + 12] in self.known for i in range(len(text) - 11)) for text in texts]
        return np.array([(float(n), len(text)) for n, text in zip(found, texts, strict=True)])

    def continuations(self, prompts, count):
        return [TEXT[(at := TEXT.index(prompt) + len(prompt)) : at + count] for prompt in prompts]

    def variant_scores(self, genome, rows):
        return np.array([-1.0 if alternative == "T" else 1.0 for *_, alternative in rows])


@pytest.fixture
def source(tmp_path):
    (tmp_path / "genome.fa").write_text(f">one\n{TEXT}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "held.bed").write_text("one\t10000\t20000\none\t30000\t50000\n")
    return Source(tmp_path / "data", tmp_path / "genome.fa")


def named(tasks):
    return {task.name: task for task in tasks}


def value(task, prediction, measure=None):
    (values,) = prediction.values
    return task.scorer(values)(np.arange(task.rows))[measure or task.measure]


def test_lm_counts_nats_per_base(source):
    (task,) = lm.tasks(source)
    assert (task.name, task.rows) == ("held", 24)  # windows of 1,200 bases in 10 and 20 kb
    assert value(task, task.baselines["uniform"]()) == pytest.approx(math.log(4))
    text = TEXT[10000:11200]
    assert task.texts[0] == (text, "held: one:10000-11200")
    assert value(task, task.ways[LIKELIHOOD](Oracle())) == pytest.approx(-(1200 - 11) / 1200)
    assert 1.3 < value(task, task.baselines[CHAIN]()) < math.log(4)


def test_zero_shot_of_a_model_that_knows_everything(source):
    tasks = named(zero_shot.tasks(source))
    assert list(tasks) == ["recovery", "shuffled", "repeat"]
    for name in ("recovery", "shuffled"):
        assert value(tasks[name], tasks[name].ways[LIKELIHOOD](Oracle())) == 1.0
    assert value(tasks["shuffled"], tasks["shuffled"].baselines["Markov chain of order 2"]()) < 1.0
    # a chain does not see the first copy: both orders of the two sequences are equally likely
    assert value(tasks["repeat"], tasks["repeat"].baselines[CHAIN]()) == 0.5
    real, other = (text for text, _ in tasks["shuffled"].texts[:2])
    assert Counter(pairwise(real)) == Counter(pairwise(other))
    assert real in TEXT
    copy = tasks["repeat"].texts[0][0]
    assert copy[:120] == copy[-120:]


def test_codons_and_splice_sites_of_an_annotation(source, tmp_path):
    """Three genes with an open frame of 330 bases, an intron and a second exon."""
    text = list(TEXT)
    rows = []
    for i, start in enumerate((12000, 33000, 41000)):
        frame = "ATG" + "".join(RNG.choice(["GCC", "GAA", "AAA", "CTG"]) for _ in range(109))
        text[start : start + 330] = list(frame)
        text[start + 330 : start + 332], text[start + 1028 : start + 1030] = list("GT"), list("AG")
        exons = (f"{start},{start + 1030},", f"{start + 330},{start + 1100},")
        span, name = (start, start + 1100), f"G{i}"
        rows.append(["0", name, "one", "+", *span, *span, 2, *exons, "0", name, "cmpl", "cmpl", "0,0,"])
    (tmp_path / "genome.fa").write_text(f">one\n{''.join(text)}\n")
    (tmp_path / "genes.txt").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    source.annotation = tmp_path / "genes.txt"
    tasks = named(zero_shot.tasks(source))
    codon = tasks["codon"]
    assert codon.rows == 3
    for (shifted, _), (stopped, _) in zip(codon.texts[::2], codon.texts[1::2], strict=True):
        frames = [[one[i : i + 3] for i in range(0, 297, 3)] for one in (shifted, stopped)]
        assert not set(frames[0]) & set(zero_shot.STOPS)
        assert frames[1][50] in zero_shot.STOPS
        assert sum(a != b for a, b in zip(shifted, stopped, strict=True)) <= 4
    donor = tasks["splice donor"]
    assert donor.rows % 2 == 0
    assert donor.facts["pairs"] >= 2
    assert value(donor, donor.baselines[CPG]()) == 0.5
    source.only = ("codon",)
    source.annotation = None
    with pytest.raises(LabelError, match="give --annotation"):
        list(zero_shot.tasks(source))


def vcf(source, lines):
    (source.data / "held.bed").unlink()
    (source.data / "a.vcf").write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))


def labelled_lines(count=40):
    lines = []
    for i in range(count):
        at = 1000 + 1200 * i
        reference = TEXT[at - 1]
        bad = i % 2 == 0 and reference != "T"
        other = "T" if bad else next(base for base in "ACG" if base != reference)
        label = "Pathogenic" if bad else "Common"
        lines.append(["one", at, f"{label}_{i}", reference, other])
    return lines


def test_variants_by_their_labels(source):
    lines = labelled_lines()
    vcf(source, lines)
    (task,) = variants.tasks(source)
    assert value(task, task.ways[LIKELIHOOD](Oracle())) == 1.0
    assert value(task, task.baselines["chance"]()) == 0.5
    assert task.facts["class 1"] == sum(line[2].startswith("Path") for line in lines)


def test_variants_within_their_consequence_class(source):
    rows = ["contig,pos,ref,alt,label,consequence"]
    for i, (contig, at, label, ref, alt) in enumerate(labelled_lines(48)):
        rows.append(f"{contig},{at},{ref},{alt},{label.split('_')[0]},{'coding' if i < 40 else 'other'}")
    (source.data / "held.bed").unlink()
    (source.data / "a.csv").write_text("\n".join(rows) + "\n")
    (task,) = variants.tasks(source)
    prediction = task.ways[LIKELIHOOD](Oracle())
    assert value(task, prediction, "auroc: coding") == 1.0
    assert "auroc: other" not in task.scorer(prediction.values[0])(np.arange(task.rows))


def test_a_table_of_one_kind_says_nothing_and_one_of_the_truth_everything():
    """The folds have different shares of class 1, which must not show."""
    truth, clusters = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 1] * 4), np.arange(40) // 3
    alike = cross_fitted(["x"] * 40, truth, clusters)
    assert set(alike.tolist()) == {0.0}
    known = cross_fitted(truth, truth, clusters)
    assert known[truth == 1].min() > known[truth == 0].max()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["one", 700, "Odd_1", TEXT[699], "A"], r"a.vcf:41: label 'Odd': wanted one of"),
        (["one", 700, "Common_1", "ACGT"["TGCA".index(TEXT[699])], "A"], r"a.vcf:41: one:700: the reference"),
        (["one", "x", "Common_1", "A", "C"], r"a.vcf:41: POS = 'x'"),
        (["one", 700, "Common_1", TEXT[699], "<DEL>"], r"a.vcf:41: REF '.', ALT '<DEL>'"),
        (["one", 700], r"a.vcf:41: 2 tab-separated columns"),
        (["two", 700, "Common_1", "A", "C"], r"a.vcf:41: no contig 'two'"),
    ],
)
def test_bad_variants_name_their_line(source, line, message):
    vcf(source, [*labelled_lines(), line])
    with pytest.raises(InputFileError, match=message):
        list(variants.tasks(source))


def test_variants_of_one_label(source):
    vcf(source, [line for line in labelled_lines() if line[2].startswith("Common")])
    with pytest.raises(LabelError, match=r"a.vcf:1: no variant from here on has one of the labels 1, true"):
        list(variants.tasks(source))


def elements(path, change=None):
    """Three elements of 130 bases; the effect of T is -1, of others 1, with a little noise."""
    rows = ["Chrom\tPos\tRef\tAlt\tBarcodes\tDNA\tRNA\tCoefficient\tpValue\tElement\tRelease"]
    for e in range(3):
        for p in range(130):
            ref = TEXT[e * 1000 + p]
            for alt in "ACGT".replace(ref, ""):
                effect = (-1 if alt == "T" else 1) + 0.01 * p
                rows.append(f"{e}\t{5000 * e + p + 1}\t{ref}\t{alt}\t20\t1\t1\t{effect}\t0.5\tE{e}\tGRCh37")
    if change is not None:
        rows[change[0]] = change[1]
    path.mkdir()
    (path / "elements.tsv").write_text("\n".join(rows) + "\n")
    return Source(path)


def test_mpra_is_spearman_per_element(tmp_path):
    tasks = named(mpra.tasks(elements(tmp_path / "mpra")))
    task = tasks["effect"]
    prediction = task.ways[LIKELIHOOD](Oracle())
    (values,) = prediction.values
    rows = [i for i in range(30, 94)]
    effects = [(-1 if alt == "T" else 1) + 0.01 * p for p in rows for alt in "ACGT".replace(TEXT[p], "")]
    scores = task.scorer(values)(np.arange(task.rows))
    wanted = spearmanr(effects, values[: len(effects)])[0]
    assert scores["spearman: E0"] == pytest.approx(wanted)
    assert scores["spearman"] == pytest.approx(np.mean([scores[f"spearman: E{i}"] for i in range(3)]))
    assert value(task, task.baselines["chance"]()) == 0.0
    assert (
        value(tasks["size"], tasks["size"].ways[LIKELIHOOD](Oracle())) == 0.0
    )  # its scores are all of size 1


def test_mpra_frozen_finds_an_effect_that_the_vectors_hold(tmp_path):
    task = named(mpra.tasks(elements(tmp_path / "mpra")))["effect"]

    class Counts(Oracle):
        def vectors(self, texts):
            return np.array([[[text.count(base) for base in "ACGT"]] for text in texts], np.float32)

    # one weight for each base, whether it comes or goes: less than the oracle's 0.76
    assert value(task, task.ways[FROZEN](Counts())) > 0.45


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((0, "Chrom\tPos\tRef"), r"elements.tsv:1: no column 'Alt'"),
        ((5, "1\t2"), r"elements.tsv:6: 2 fields, the header has 11"),
        (
            (5, f"0\t1\t{'ACGT'['TGCA'.index(TEXT[0])]}\tA\t20\t1\t1\t0.1\t0.5\tE0\tGRCh37"),
            r"elements.tsv:6: Ref is",
        ),
        (
            (5, f"0\t2\t{TEXT[1]}\tA\t20\t1\t1\tlarge\t0.5\tE0\tGRCh37"),
            r"elements.tsv:6: Coefficient = 'large'",
        ),
    ],
)
def test_bad_elements_name_their_line(tmp_path, change, message):
    with pytest.raises(LabelError, match=message):
        list(mpra.tasks(elements(tmp_path / "mpra", change)))


def test_a_report_of_likelihoods(source, tmp_path, monkeypatch):
    monkeypatch.setattr("dnagpt_fast.suites.job.write_report", lambda *_: None)
    source.max_rows = 4
    model = str(small_model(tmp_path))
    report = evaluate("zero-shot", source, Choices((model,), resamples=10), tmp_path / "report")
    for task in report["tasks"]:
        names = [one["method"] for one in task["results"]]
        assert names[-2:] == [model, f"{model}, random weights"]
        assert task["bootstrap"] == "clusters"
        assert "no record" in task["findings"][-1]


def test_ranges_without_genome_or_sequence(source):
    source.window_bp = 25_000
    with pytest.raises(LabelError, match="0 windows of 25,000 bases"):
        list(lm.tasks(source))
    with pytest.raises(LabelError, match="give --genome"):
        list(lm.tasks(Source(source.data)))
