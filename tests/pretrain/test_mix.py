"""Genomes of a run: tables, species, held-out ranges."""

from dataclasses import replace

import pytest
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome.regions import RegionError
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.input_files import InputFileError
from dnagpt_fast.pretrain.mix import GenomeMix, read_table, species_id
from dnagpt_fast.pretrain.settings import DataSettings, GenomeSettings, PlaceSettings
from dnagpt_fast.training.settings import ConfigError
from dnagpt_fast.vocab import reserved_id


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "two.fa"
    path.write_text(">one\n" + "ACGT" * 25 + "\n>HLA:1-2\n" + "GGCC" * 10 + "\n")
    return path


def open_one(path, **settings) -> GenomeMix:
    return GenomeMix.open(DataSettings(genomes=(GenomeSettings(path=str(path), **settings),)))


def test_held_out_ranges(fasta):
    mix = open_one(fasta, held_out=("HLA:1-2", "one:1,0-20", "HLA:1-2:5-7"))
    (held_out,) = mix.held_out
    assert held_out.contig.tolist() == [1, 0, 1]
    assert held_out.start_bp.tolist() == [0, 10, 5]
    assert held_out.end_bp.tolist() == [40, 20, 7]


def test_the_tail_is_held_out_where_nothing_is_named(fasta):
    mix = open_one(fasta)
    assert mix.settings[0].held_out == ("one:95-100", "HLA:1-2:38-40")
    data = DataSettings(genomes=(GenomeSettings(path=str(fasta)),), held_out_tail=0.0)
    assert len(GenomeMix.open(data).held_out[0]) == 0


@pytest.mark.parametrize(
    "text", ["two", "one:5", "one:5-5", "one:7-5", "one:0-101", "one:-1-5", "one:a-b", ""]
)
def test_bad_ranges_are_refused(fasta, text):
    with pytest.raises(RegionError, match="held-out range"):
        open_one(fasta, held_out=(text,))


def test_a_table_of_genomes(fasta, tmp_path):
    table = tmp_path / "mix.tsv"
    table.write_text(
        "# mammals\npath\tspecies\tweight\theld_out\ntwo.fa\tmouse\t2.5\tone:0-5, HLA:1-2\n\ntwo.fa\tW\t\t\n"
    )
    rows = read_table(table)
    assert rows == (
        GenomeSettings(str(fasta), "mouse", 2.5, ("one:0-5", "HLA:1-2")),
        GenomeSettings(str(fasta), "W", 1.0, ()),
    )
    mix = GenomeMix.open(DataSettings(genome_table=str(table)))
    assert mix.species == (reserved_id("S"), reserved_id("W"))
    assert mix.weights == [2.5, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("path\tweight\n", "line 1: the header is"),
        ("path\tspecies\tmass\n", "line 1: the header is"),
        ("path\tspecies\nx\n", "line 2: 1 columns: the header has 2"),
        ("path\tspecies\tweight\nx\thuman\tmuch\n", "line 2: weight 'much' is no number"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    (tmp_path / "mix.tsv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_table(tmp_path / "mix.tsv")


def test_species_are_names_or_tokens():
    assert species_id("human") == species_id("Human") == species_id("R") == reserved_id("R")
    for name in ("martian", "r"):
        with pytest.raises(ConfigError, match=f"species '{name}': wanted one of human"):
            species_id(name)


def test_windows_are_described(fasta):
    mix = open_one(fasta)
    windows = Windows(*(torch.tensor(column) for column in ([0, 0], [1, 0], [3, 7], [3, 1])))
    assert mix.describe(windows, 12) == [
        f"{fasta} HLA:1-2:3-15 reverse complement",
        f"{fasta} one:7-19 reversed",
    ]


def test_fingerprints_follow_the_contents(fasta, tmp_path):
    copy = tmp_path / "copy.fa"
    copy.write_text(fasta.read_text())
    assert open_one(copy).fingerprints() == open_one(fasta).fingerprints()
    copy.write_text(fasta.read_text().replace("ACGTACGT\n", "ACGTACGN\n"))
    assert open_one(copy).fingerprints() != open_one(fasta).fingerprints()


def test_an_entry_without_a_path_is_refused():
    with pytest.raises(ConfigError, match="has no path"):
        open_one("")


@pytest.fixture
def masked(tmp_path):
    path = tmp_path / "masked.fa"
    path.write_text(">one\n" + "ACGT" * 25 + "acgt" * 25 + "\n")
    (tmp_path / "exons.bed").write_text("one\t20\t40\n")
    return path


def test_places_and_the_soft_mask_weigh_windows(masked):
    settings = PlaceSettings(path=str(masked.with_name("exons.bed")), weight=9.0)
    mix = open_one(masked, places=(settings,), soft_masked_weight=0.0)
    (places,) = mix.places
    assert [each.weight.tolist() for each in places] == [[9.0], [0.0]]
    sampler = WindowSampler(
        [genome.arrays for genome in mix.genomes], 6, seed=0, held_out=mix.held_out, places=mix.places
    )
    middle = sampler.sample(0, 2000).start_bp + 3
    assert int(middle.max()) < 100
    # 20 of some 97 middles weigh 9: 180 / 257 of the samples
    share = ((middle >= 20) & (middle < 40)).double().mean()
    assert abs(share - 180 / 257) < 0.05


def test_the_fingerprint_holds_what_weighs_the_windows(masked):
    settings = PlaceSettings(path=str(masked.with_name("exons.bed")), weight=9.0)
    plain, placed = open_one(masked), open_one(masked, places=(settings,))
    prints = [plain, placed, open_one(masked, soft_masked_weight=0.5)]
    in_loss = replace(settings, weight=1.0, loss_weight=2.0)
    prints += [
        open_one(masked, places=(in_loss,)),
        GenomeMix.open(DataSettings(genomes=(GenomeSettings(path=str(masked)),)), soft_masked_in_loss=0.5),
    ]
    assert len({mix.fingerprints()[0] for mix in prints}) == 5
    assert plain.places == ((),)
    moved = masked.with_name("moved.bed")
    moved.write_bytes(masked.with_name("exons.bed").read_bytes())
    assert (
        open_one(masked, places=(replace(settings, path=str(moved)),)).fingerprints() == placed.fingerprints()
    )


def test_bad_places_are_refused(masked):
    with pytest.raises(ConfigError, match="an entry of places has no path"):
        open_one(masked, places=(PlaceSettings(),))
    with pytest.raises(ConfigError, match=r"soft_masked_weight = -1: wanted 0 or more"):
        open_one(masked, soft_masked_weight=-1)
    bed = str(masked.with_name("exons.bed"))
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"loss_weight = {bad}: wanted a number of 0 or more"):
            open_one(masked, places=(PlaceSettings(path=bed, loss_weight=bad),))
    bare = masked.with_name("bare.fa")
    bare.write_text(masked.read_text().upper())
    with pytest.raises(
        ConfigError, match=r"soft_masked_weight = 0.5, and the genome has no soft-masked base"
    ):
        open_one(bare, soft_masked_weight=0.5)
    data = DataSettings(genomes=(GenomeSettings(path=str(bare)),))
    with pytest.raises(ConfigError, match=r"loss.soft_masked_weight = 0.5, and no genome has a soft-masked"):
        GenomeMix.open(data, soft_masked_in_loss=0.5)
    twice = (PlaceSettings(path=bed, loss_weight=2.0), PlaceSettings(path=bed, loss_weight=3.0))
    with pytest.raises(InputFileError, match=r"exons.bed:1 and .*exons.bed:1 overlap .* weights 2 and 3"):
        open_one(masked, places=twice)
