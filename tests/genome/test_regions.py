"""Contigs by their usual names, ranges by the last colon, and one look-up for every command."""

import numpy as np
import pytest

from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.regions import RegionError, is_browser_line, parse_range
from dnagpt_fast.ops import gc_track
from dnagpt_fast.pretrain.mix import GenomeMix
from dnagpt_fast.pretrain.settings import DataSettings, GenomeSettings

HLA = "HLA-A*01:01:01:01"


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "x.fa").write_text(
        f">chr20\n{'ACGT' * 10}\n>X\nAAAACCCC\n>{HLA}\n{'GATT' * 10}\n>{HLA}:3-9\nACGTACGT\n>a\nAC\n>chrA\nGT\n"
    )
    return Genome.open(tmp_path / "x.fa")


@pytest.mark.parametrize(
    ("name", "found"),
    [("20", 0), ("chr20", 0), ("Chr20", 0), ("chrX", 1), ("x", 1), (HLA, 2), ("a", 4), ("chrA", 5)],
)
def test_a_contig_has_its_usual_names(genome, name, found):
    assert genome.contigs.find(name) == found
    assert genome.sequence(name) == genome.sequence(genome.names[found])
    assert gc_track(genome, name, 4)[0].tolist() == gc_track(genome, found, 4)[0].tolist()


@pytest.mark.parametrize(
    ("name", "said"),
    [("21", "v: no contig '21' in .*which has chr20, X"), ("ChrA", "v: contig 'ChrA' may be 'a' and 'chrA'")],
)
def test_no_contig_and_several(genome, name, said):
    with pytest.raises(RegionError, match=said):
        genome.contigs.find(name, "v")
    assert name not in genome.contigs


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("20", ("20", 0, None)),
        ("20:1,000-2,000", ("20", 1000, 2000)),
        (HLA, (HLA, 0, None)),
        (f"{HLA}:5-8", (HLA, 5, 8)),
        ("20:5", ("20:5", 0, None)),
    ],
)
def test_ranges(text, found):
    assert parse_range(text) == found


@pytest.mark.parametrize("text", ["20:9-5", "20:5-5", "20:,-5", f"20:1-{10**30}"])
def test_a_range_runs_forward(text):
    with pytest.raises(RegionError, match=r"data.region: '20.*0-based and half-open"):
        parse_range(text, "data.region")


def held_out(genome, *texts):
    mix = GenomeMix.open(DataSettings(genomes=(GenomeSettings(str(genome.path), "human", held_out=texts),)))
    return np.stack([mix.held_out[0].contig, mix.held_out[0].start_bp, mix.held_out[0].end_bp], 1).tolist()


def test_held_out_ranges_take_the_usual_names_and_colons(genome):
    assert held_out(genome, "20:4-8", "chrX", f"{HLA}:2-9", f"{HLA}:3-9") == [
        [0, 4, 8], [1, 0, 8], [2, 2, 9], [3, 0, 8],
    ]  # fmt: skip
    with pytest.raises(
        RegionError, match=r"held-out range of .*x.fa: '20:4-99': wanted 0 <= start < end <= 40"
    ):
        held_out(genome, "20:4-99")


def test_a_contig_may_have_a_name_like_a_browser_line():
    for line in ('track name="x"', "browser position chr1:1-2", "track", 'track\tname="x"'):
        assert is_browser_line(line), line
    gff = "track\tx\texon\t3\t6\t.\t+\t.\tID=a"
    for line in ("track\t0\t4", "track 0 4", "track_2\t0\t4", "browser\t0\t4\tname", "chr1\t0\t4", "", gff):
        assert not is_browser_line(line), line
