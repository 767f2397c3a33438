"""make-task: sites at the annotated places, negatives at the same motif elsewhere, and no overlap between
sets."""

import json

import numpy as np
import pytest

from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.data.sites import (
    MOTIFS,
    TaskSettings,
    annotated_sites,
    hard_negatives,
    make_task,
    motif_places,
)
from dnagpt_fast.finetune.data.tables import read_table
from dnagpt_fast.genome import Genome
from tests.finetune.data.genomes import random_bases, reverse_complement, two_gene_genome


@pytest.fixture
def made(tmp_path):
    genome, table = two_gene_genome(tmp_path)
    return genome, read_annotation(table)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("tis", [(1040, False, "tis"), (4637, True, "tis")]),
        ("pas", [(1480, False, "pas"), (4015, True, "pas")]),
        ("splice-donor", [(1100, False, "donor"), (4498, True, "donor")]),
        ("splice-acceptor", [(1298, False, "acceptor"), (4200, True, "acceptor")]),
        (
            "splice",
            [
                (1100, False, "donor"),
                (1298, False, "acceptor"),
                (4200, True, "acceptor"),
                (4498, True, "donor"),
            ],
        ),
    ],
)
def test_sites_are_where_the_genes_were_built(made, kind, wanted):
    genome, transcripts = made
    sites, counts = annotated_sites(transcripts, genome, kind)
    assert list(zip(sites.start_bp.tolist(), sites.reverse.tolist(), sites.signal, strict=True)) == wanted
    assert counts["transcripts on contigs that the genome lacks"] == 1
    assert counts["annotated more than once"] == len(wanted) / 2  # NM_1b repeats the sites of NM_1


def test_a_site_without_its_motif_is_left_out_and_counted(tmp_path, made):
    genome, transcripts = made
    from dataclasses import replace

    # NM_1 and NM_1b: two transcripts, one place
    shifted = [replace(t, coding_bp=(t.coding_bp[0] + 1, t.coding_bp[1])) for t in transcripts[:2]]
    sites, counts = annotated_sites(shifted, genome, "tis")
    assert len(sites) == 0
    assert counts == {"annotated tis without ATG": 1}


def test_ends_that_share_a_poly_a_signal_give_it_once(made):
    genome, transcripts = made
    from dataclasses import replace

    first = transcripts[0]
    longer = replace(first, exons=np.array([[1000, 1100], [1300, 1503]]))
    without = replace(first, exons=np.array([[1000, 1100], [1300, 1450]]))
    sites, counts = annotated_sites([first, longer, without, without], genome, "pas")
    assert sites.start_bp.tolist() == [1480]
    assert counts == {"annotated more than once": 1, "transcript ends without a signal": 1}


def test_motif_places_are_those_of_a_text_search(made):
    genome, _ = made
    bases = genome.sequence("20")
    for motif in ("ATG", "AATAAA", "GT"):
        start, reverse = motif_places(genome, 0, motif)
        for strand, text in ((False, motif), (True, reverse_complement(motif))):
            wanted = [i for i in range(len(bases)) if bases.startswith(text, i)]
            assert start[reverse == strand].tolist() == wanted


def test_negatives_have_the_motif_and_are_not_annotated(made):
    genome, transcripts = made
    positives, _ = annotated_sites(transcripts, genome, "tis")
    negatives, places = hard_negatives(
        genome, transcripts, positives, TaskSettings("tis", window_bp=60, negatives=20)
    )
    assert len(negatives) == 40
    drawn = set(zip(negatives.start_bp.tolist(), negatives.reverse.tolist(), strict=True))
    assert len(drawn) == 40
    assert not drawn & {(1040, False), (4637, True)}
    whole = genome.sequence("20")
    assert places == {"ATG": whole.count("ATG") + whole.count("CAT") - 2}
    for start, reverse in drawn:
        bases = genome.sequence("20", start, start + 3)
        assert (reverse_complement(bases) if reverse else bases) in MOTIFS["tis"]


def test_negatives_within_genes_are_on_the_strand_of_the_gene(made):
    genome, transcripts = made
    positives, _ = annotated_sites(transcripts, genome, "tis")
    settings = TaskSettings("tis", window_bp=60, negatives=5, within_genes=True)
    found, places = hard_negatives(genome, transcripts, positives, settings)
    starts = np.where(found.reverse, -found.start_bp, found.start_bp)
    assert (((starts >= 1000) & (starts < 1500)) | ((starts > -4700) & (starts <= -4000))).all()
    forward, reverse = genome.sequence("20", 1000, 1502), genome.sequence("20", 4000, 4702)
    assert places == {"ATG": forward.count("ATG") + reverse.count("CAT") - 2}


@pytest.mark.parametrize("keep_motif", [False, True])
def test_the_table(tmp_path, made, keep_motif):
    genome, transcripts = made
    settings = TaskSettings("tis", window_bp=60, keep_motif=keep_motif, negatives=20, block_bp=500)
    summary = make_task(genome, transcripts, settings, tmp_path / "tis.tsv")
    rows = read_table(tmp_path / "tis.tsv")
    assert len(rows) == summary["rows"] == sum(sum(d.values()) for d in summary["labels"].values())
    assert json.loads((tmp_path / "tis.json").read_text())["sha256"] == summary["sha256"]
    assert set(map(len, rows.sequence)) == {63 if keep_motif else 60}
    for i, sequence in enumerate(rows.sequence):
        start, end = int(rows.loci.start_bp[i]), int(rows.loci.end_bp[i])
        assert end - start == 63
        bases = genome.sequence("20", start, end)
        bases = reverse_complement(bases) if rows.loci.strand[i] == "-" else bases
        assert bases[30:33] == "ATG"
        assert sequence == (bases if keep_motif else bases[:30] + bases[33:])
        assert (rows.label[i] == "translation_start") == (start in (1010, 4607))


def test_the_seed_decides(tmp_path, made):
    genome, transcripts = made
    hashes = [
        make_task(
            genome,
            transcripts,
            TaskSettings("tis", 60, negatives=20, block_bp=500, seed=seed),
            tmp_path / "x.tsv",
        )
        for seed in (7, 7, 8)
    ]
    assert hashes[0]["sha256"] == hashes[1]["sha256"] != hashes[2]["sha256"]


def test_windows_with_n_or_over_the_end_are_left_out(tmp_path):
    bases = random_bases(3000, seed=2)
    bases = bases[:10] + "ATG" + bases[13:500] + "N" * 200 + "ATG" + bases[703:]
    (tmp_path / "g.fa").write_text(f">1\n{bases}\n")
    rows = [f"T{s}\t1\t+\t{s}\t{s + 90}\t{s}\t{s + 90}\t1\t{s},\t{s + 90},\n" for s in (10, 700)]
    (tmp_path / "a").write_text("".join(rows))
    genome, transcripts = Genome.open(tmp_path / "g.fa"), read_annotation(tmp_path / "a")
    positives, _ = annotated_sites(transcripts, genome, "tis")
    assert positives.start_bp.tolist() == [10, 700]
    with pytest.raises(LabelError, match=r"leave no rows|only one class"):
        make_task(genome, transcripts, TaskSettings("tis", 100, negatives=5), tmp_path / "x.tsv")


def test_n_of_a_window_are_counted_exactly(tmp_path):
    from dnagpt_fast.finetune.data.sites import Sites, _usable

    bases = np.array(list(random_bases(400, seed=4)))
    for start, end in ((0, 7), (60, 65), (66, 90), (395, 400)):
        bases[start:end] = "N"
    (tmp_path / "g.fa").write_text(f">1\n{''.join(bases)}\n")
    genome = Genome.open(tmp_path / "g.fa")
    starts = np.arange(0, 398)
    sites = Sites(
        np.zeros(398, np.int64), starts, np.zeros(398, bool), np.full(398, 2), np.full(398, "donor")
    )
    settings = TaskSettings("splice-donor", window_bp=20, max_n_share=0.2)
    wanted = [
        s - 10 >= 0 and s + 12 <= 400 and (bases[max(s - 10, 0) : s + 12] == "N").sum() <= 0.2 * 22
        for s in starts
    ]
    assert _usable(genome, sites, settings).tolist() == wanted


def test_an_annotation_of_another_genome(tmp_path, made):
    genome, transcripts = made
    with pytest.raises(LabelError, match=r"no tis site of the annotation is on a contig of .*g.fa \(20\)"):
        make_task(genome, transcripts[3:], TaskSettings("tis"), tmp_path / "x.tsv")
    (tmp_path / "short.fa").write_text(">20\nACGT\n")
    with pytest.raises(
        LabelError, match=r"genes.txt:2: NM_1 ends at 1,500, contig '20' .* at 4: not the same assembly"
    ):
        make_task(Genome.open(tmp_path / "short.fa"), transcripts, TaskSettings("tis"), tmp_path / "x.tsv")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "tiss"}, "wanted one of tis"),
        ({"kind": "tis", "window_bp": 5}, "even"),
        ({"kind": "tis", "negatives": -1}, "0 or more"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        TaskSettings(**settings)
