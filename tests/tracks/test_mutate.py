"""Saturation mutagenesis: the table's scores are those of the variants, on both strands, and the figure is drawn."""

import numpy as np
import pandas as pd
import pytest

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.tracks.mutate import mutate, plot, write_table
from dnagpt_fast.variants.places import variant_scores
from tests.tiny import load_tiny
from tests.variants.cohort import CONTIGS, open_genome


@pytest.fixture
def genome(tmp_path):
    with open_genome(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("score", ["llr", "conditional"])
def test_every_substitution_is_in_the_table(genome, tmp_path, score):
    model, tokenizer, seen = load_tiny("tiny_bias").model(), KmerTokenizer(3), []
    place = Place("peak", "chr1", 200, 212, "-")
    found = mutate(model, tokenizer, genome, place, score=score, progress=seen.append, context_bp=30)
    assert sum(seen) == 12
    write_table(tmp_path / "map.tsv", found)
    table = pd.read_csv(tmp_path / "map.tsv", sep="\t")
    assert len(table) == 36
    complement = dict(zip("ACGT", "TGCA", strict=True))
    variants = [
        ("chr1", row.position, complement[row.reference], complement[row.alternative])
        for row in table.itertuples()
    ]
    assert all(CONTIGS["chr1"][start] == reference for _, start, reference, _ in variants)
    wanted = [
        getattr(one, score) for one in variant_scores(model, tokenizer, genome, variants, context_bp=30)
    ]
    np.testing.assert_allclose(table[score], wanted, rtol=1e-5)
    assert table["position"].tolist() == sorted(table["position"], reverse=True)


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_figure_is_drawn(genome, tmp_path, ending):
    place = Place("edge", "chr20", 215, 262)  # the windows of the last bases have too many unknown bases
    found = mutate(load_tiny("tiny_bias").model(), KmerTokenizer(3), genome, place, phases=1, strands=1)
    assert np.isfinite(found.scores[0]).all()
    assert np.isnan(found.scores[-1]).sum() == 3
    plot(tmp_path / f"map.{ending}", found)
    content = (tmp_path / f"map.{ending}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending])
    assert len(content) > 5000


def test_a_place_as_a_range_or_as_its_text(genome):
    model, tokenizer, settings = load_tiny("tiny_bias").model(), KmerTokenizer(3), {"phases": 1, "strands": 1}
    wanted = mutate(model, tokenizer, genome, Place("x", "chr1", 200, 203, "-"), **settings)
    for given in ("chr1:200-203(-)", genome["chr1:200-203"].reverse_complement()):
        found = mutate(model, tokenizer, genome, given, **settings)
        assert np.array_equal(found.scores, wanted.scores)
        assert found.place == wanted.place._replace(name="chr1:200-203(-)")


def test_what_cannot_be_drawn_is_named(genome, tmp_path):
    model, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    with pytest.raises(ValueError, match="score = 'cond'"):
        mutate(model, tokenizer, genome, Place("x", "chr1", 200, 212), score="cond")
    with pytest.raises(ValueError, match="x: 0 bp: wanted"):
        mutate(model, tokenizer, genome, Place("x", "chr1", 200, 200))
    found = mutate(model, tokenizer, genome, Place("x", "chr1", 200, 201), phases=1, strands=1)
    unknown = mutate(model, tokenizer, genome, Place("x", "chr20", 310, 312), phases=1, strands=1)
    with pytest.raises(ValueError, match="none of its bases has a score"):
        plot(tmp_path / "map.png", unknown)
    with pytest.raises(ValueError, match=r"ends in \.png, \.pdf, \.svg"):
        plot(tmp_path / "map.jpg", found)
