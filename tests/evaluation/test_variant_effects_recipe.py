"""The recipe of variant effects: its baseline scores against whole sequences, and where its splice variants lie."""

import numpy as np
import pytest

from dnagpt_fast import Genome
from dnagpt_fast.evaluation.chains import Chains
from dnagpt_fast.evaluation.markov import MarkovChain, text_codes
from dnagpt_fast.vocab import reverse_complement
from tests.imports import ROOT

RNG = np.random.default_rng(12)
INTRONS = {"+": (600, 1500), "-": (2000, 2950)}


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    import variant_effects

    return variant_effects


@pytest.fixture
def genome(tmp_path):
    letters = RNG.choice(list("ACGT"), 4000)
    for strand, (start, end) in INTRONS.items():
        letters[start : start + 2], letters[end - 2 : end] = (
            (list("GT"), list("AG")) if strand == "+" else (list("CT"), list("AC"))
        )
    (tmp_path / "20.fa").write_text(">20\n" + "".join(letters) + "\n")
    with Genome.open(tmp_path / "20.fa") as opened:
        yield opened


def test_chain_scores_are_differences_of_whole_sequences(recipe, genome):
    text = genome.sequence("20")
    chain = MarkovChain(3).fit([text_codes(text)])
    variants = [("20", i, text[i], "CGTA"["ACGT".index(text[i])]) for i in (0, 2, 700, 3998, 3999)]
    wanted = []
    for _, position, _, alternative in variants:
        sums = []
        for whole in (text[:position] + alternative + text[position + 1 :], text):
            strands = (whole, reverse_complement(whole))
            sums.append(np.mean([chain.log_probs(text_codes(one), 2, 8.0).sum() for one in strands]))
        wanted.append(sums[0] - sums[1])
    found = recipe.chain_scores(Chains(chain, 2, 8.0, 0), genome, variants)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_changes_are_named_on_one_strand(recipe, tmp_path):
    (tmp_path / "x.fa").write_text(">x\nACGTA\n")
    with Genome.open(tmp_path / "x.fa") as genome:
        found = recipe.changes(genome, [("x", 1, "C", "T"), ("x", 2, "G", "A"), ("x", 0, "A", "C")])
    assert found == ["ACG>T", "ACG>T", "GTN>G"]
    assert [recipe.is_cpg_transition(name) for name in found] == [True, True, False]


def test_knock_outs_are_in_the_motif_and_controls_deeper(recipe, genome, tmp_path):
    rows = []
    for strand, (start, end) in INTRONS.items():
        exons = (f"{start - 100},{end},", f"{start},{end + 100},")
        span = (start - 100, end + 100)
        rows.append(
            [
                "0",
                f"NM_{start}",
                "chr20",
                strand,
                *span,
                *span,
                2,
                *exons,
                "0",
                "GENE",
                "cmpl",
                "cmpl",
                "0,0,",
            ]
        )
    table = tmp_path / "genes.txt"
    table.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    assert recipe.introns(table) == [(*span, strand) for strand, span in INTRONS.items()]
    settings = {"control_bp": [20, 300], "each": 0, "block_bp": 1000}
    seen = 0
    for seed in range(4):
        tasks = recipe.knock_outs(genome, table, settings, np.random.default_rng(seed))
        for kind, task in tasks.items():
            change = recipe.changes(genome, task.variants)
            assert task.truth.tolist() == [1, 0] * (len(task.variants) // 2)
            for site, control, one, other in zip(
                task.variants[::2], task.variants[1::2], change[::2], change[1::2], strict=True
            ):
                assert one == other
                strand = "+" if site[1] < 1800 else "-"
                start, end = INTRONS[strand]
                first = start if (kind == "donor") == (strand == "+") else end - 2
                assert site[1] in (first, first + 1)
                assert all(genome.sequence("20", v[1], v[1] + 1) == v[2] != v[3] for v in (site, control))
                away = control[1] - site[1] if first == start else site[1] - control[1]
                assert 20 <= away < 300
                seen += 1
    assert seen >= 8


def test_class_means_are_drawn_to_the_mean_of_all(recipe):
    means = recipe.class_means(["a", "a", "b"], np.array([1.0, 1.0, 4.0]), pseudo=1.0)
    assert means == pytest.approx({"a": (2 + 2) / 3, "b": (4 + 2) / 2, "": 2.0})
    np.testing.assert_allclose(recipe.by_class(["b", "c"], means), [3.0, 2.0])
