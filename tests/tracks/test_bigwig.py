"""Tracks in BigWig files: values of the model, no value at unknown bases, a hub that names the files."""

import numpy as np
import pyBigWig
import pytest

from dnagpt_fast import Genome, KmerTokenizer
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.tracks import bigwig
from dnagpt_fast.tracks.bigwig import merged, piece, write_tracks
from tests.tiny import load_tiny
from tests.variants.cohort import CONTIGS, write_genome


@pytest.fixture
def genome(tmp_path):
    with Genome.open(write_genome(tmp_path)) as opened:
        yield opened


@pytest.fixture(scope="module")
def tracks():
    return BaseTracks(Inference(load_tiny("tiny_bias").model()), KmerTokenizer(3))


def values(path, contig, start, end):
    with pyBigWig.open(str(path)) as file:
        return np.array(file.values(contig, start, end), np.float32)


@pytest.mark.parametrize("both_strands", [False, True])
def test_tracks_have_the_values_of_the_model(tracks, genome, tmp_path, monkeypatch, both_strands):
    monkeypatch.setattr(bigwig, "PIECE_BP", 37)
    folder, seen = tmp_path / "tracks", []
    ranges = [(1, 280, 360), (0, 10, 90), (0, 60, 120)]
    done = write_tracks(tracks, genome, ranges, folder, both_strands=both_strands, progress=seen.append)
    assert (done.bases, sum(seen)) == (110 + 40, 110 + 80)
    ask = tracks.both_strands if both_strands else tracks.strand
    for contig, start, end in merged(ranges):
        name = genome.names[contig]
        p = ask(genome.range(name), start, end).double().numpy()
        letters = CONTIGS[name][start:end]
        known = np.array([letter != "N" for letter in letters])
        chosen = np.array([p[i, "ACGT".find(letter)] for i, letter in enumerate(letters)])
        wanted = {
            "log_likelihood": np.log(chosen),
            "entropy": -(p * np.log2(p)).sum(1),
            **{base: p[:, i] for i, base in enumerate("ACGT")},
        }
        for track, of_track in wanted.items():
            found = values(folder / f"{track}.bw", name, start, end)
            assert np.array_equal(np.isfinite(found), known)
            np.testing.assert_array_equal(found[known], of_track.astype(np.float32)[known])
    assert np.isnan(values(folder / "A.bw", "chr1", 0, 10)).all()
    with pyBigWig.open(str(folder / "A.bw")) as file:
        assert file.chroms() == {"chr1": 900, "chr20": 500}
        assert file.stats("chr1", 10, 120)[0] > 0
    hub = (folder / "hub.txt").read_text()
    named = {row.split()[1] for row in hub.splitlines() if row.startswith("bigDataUrl")}
    assert named == {path.name for path in folder.glob("*.bw")}
    assert len(named) == 6


def test_a_single_track(tracks, genome, tmp_path):
    write_tracks(tracks, genome, [(0, 0, 50)], tmp_path / "one", kinds=["entropy"])
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["entropy.bw", "hub.txt"]
    with pytest.raises(FileExistsError):
        write_tracks(tracks, genome, [(0, 0, 50)], tmp_path / "one")
    with pytest.raises(ValueError, match="tracks gc: wanted some of"):
        write_tracks(tracks, genome, [(0, 0, 50)], tmp_path / "two", kinds=["gc"])
    assert not (tmp_path / "two").exists()


def test_ranges_are_put_in_order_and_joined():
    assert merged([(1, 5, 9), (0, 3, 4), (0, 4, 8), (0, 0, 2), (0, 5, 6)]) == [
        (0, 0, 2),
        (0, 3, 8),
        (1, 5, 9),
    ]


def test_a_piece_of_unknown_bases_has_no_values(tracks, genome):
    assert all(np.isnan(found).all() for found in piece(tracks, genome, 1, 305, 335, False).values())


def test_a_file_without_its_end_is_an_error(tmp_path):
    """pyBigWig closes a file on a full disk as if nothing had happened."""
    import pyBigWig

    file = pyBigWig.open(str(tmp_path / "x.bw"), "w")
    file.addHeader([("one", 1000)])
    file.addEntries("one", 10, values=[1.0, 2.0], span=1, step=1)
    file.close()
    bigwig._check_end(tmp_path / "x.bw", tmp_path / "x.bw")
    whole = (tmp_path / "x.bw").read_bytes()
    (tmp_path / "x.bw").write_bytes(whole[:-1])
    with pytest.raises(OSError, match=r"incomplete.*x\.bw"):
        bigwig._check_end(tmp_path / "x.bw", tmp_path / "x.bw")
