"""gc_count against counts in the text."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnagpt_fast.genome.regions import ContigNames
from dnagpt_fast.ops import dispatch, gc_count, gc_track
from tests.ops.packed_genomes import INSTRUCTION_SETS, packed_genome, random_text


@pytest.fixture(params=["reference", *INSTRUCTION_SETS])
def implementation(request, monkeypatch):
    """The reference, and the native kernels of each instruction set of this machine."""
    if request.param in INSTRUCTION_SETS:
        monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", request.param)
    with dispatch.using(gc_count="reference" if request.param == "reference" else "native"):
        yield request.param


def counted(text: str) -> tuple[int, int]:
    return text.count("G") + text.count("C"), len(text) - text.count("N")


@pytest.mark.parametrize("n_every", [0, 7])
def test_every_length_and_phase(implementation, n_every):
    # 0..128 bases are more than three 8-byte words of the popcount
    text = random_text(140, seed=3, n_every=n_every)
    genome = packed_genome("ACG", text)
    start_bp = torch.arange(5).repeat(129)
    length_bp = torch.arange(129).repeat_interleave(5)
    gc, known = gc_count(genome, torch.ones_like(start_bp), start_bp, length_bp)
    windows = [text[s : s + n] for s, n in zip(start_bp.tolist(), length_bp.tolist(), strict=True)]
    assert list(zip(gc.tolist(), known.tolist(), strict=True)) == [counted(window) for window in windows]


@given(data=st.data())
def test_native_equals_reference_and_adds_up(data):
    text = data.draw(st.text("ACGTN", max_size=400))
    genome = packed_genome(text)
    cut = data.draw(st.integers(0, len(text)))
    arguments = (genome, [0, 0, 0], [0, 0, cut], [len(text), cut, len(text) - cut])
    gc, known = gc_count(*arguments)
    assert gc[0] == gc[1] + gc[2]
    assert known[0] == known[1] + known[2]
    assert (gc[0].item(), known[0].item()) == counted(text)
    with dispatch.using(gc_count="reference"):
        for ours, theirs in zip((gc, known), gc_count(*arguments), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([1], [0], [1]), IndexError, "window 0: contig 1"),
        (([0], [0], [11]), IndexError, "11 bp from 0 leave contig 0 of 10 bp"),
        (([0], [11], [0]), IndexError, "from 11"),
        (([0], [0], [-1]), ValueError, "length -1 bp"),
        (([0, 0], [0, 0], [1]), ValueError, "length_bp 1"),
        (([0], [0], [1.5]), ValueError, "length_bp is float64"),
    ],
)
def test_bad_arguments(implementation, arguments, error, words):
    with pytest.raises(error, match=words):
        gc_count(packed_genome("ACGTACGTAC"), *arguments)


def test_one_length_for_all(implementation):
    gc, known = gc_count(packed_genome("GGNA"), [0, 0], [0, 1], 3)
    assert gc.tolist() == [2, 1]
    assert known.tolist() == [2, 2]


def test_long_counts_do_not_overflow_a_field(implementation):
    # 3,000 bytes of G are more than the 480 and 1,920 bytes after which the scalar and AVX2 sums of bytes are added up
    text = "G" * 12000
    gc, known = gc_count(packed_genome(text), [0, 0], [0, 1], [12000, 11998])
    assert gc.tolist() == known.tolist() == [12000, 11998]


def test_long_windows_that_are_read_several_at_a_time(implementation):
    # windows of 4 KiB and more are read four at a time, one of 256 KiB and more as four quarters; 16 bases are 4 bytes
    text = random_text(1_200_007, seed=5)
    text = text[:30_000] + "N" * 20_001 + text[50_001:]
    genome = packed_genome("ACG", text)
    start_bp = torch.tensor([0, 5, 17_003, 29_999, 600_001, 1, 1_100_002, 3, 900_000, 40_000, 2])
    length_bp = torch.tensor(
        [20_000, 16_385, 17_000, 80_001, 40_000, 0, 100_005, 1, 299_999, 5_000, 1_200_005]
    )
    for count in (3, 6, 11):
        gc, known = gc_count(
            genome, torch.ones(count, dtype=torch.int64), start_bp[:count], length_bp[:count]
        )
        windows = zip(start_bp[:count].tolist(), length_bp[:count].tolist(), strict=True)
        assert list(zip(gc.tolist(), known.tolist(), strict=True)) == [
            counted(text[s : s + n]) for s, n in windows
        ]
    for whole in (0, 1, 2, 3):
        gc, known = gc_count(genome, [1], [whole], [len(text) - whole])
        assert (gc.item(), known.item()) == counted(text[whole:])
    gc, known = gc_track(genome, 1, window_bp=20_000)
    windows = [text[s : s + 20_000] for s in range(0, len(text), 20_000)]
    assert list(zip(gc.tolist(), known.tolist(), strict=True)) == [counted(window) for window in windows]


@pytest.mark.parametrize("step_bp", [1, 3, 10, 19, 20, 25, 400])
def test_track(implementation, step_bp):
    # windows of 20 bases: steps of less than half, of more, of the whole, and with gaps
    text = random_text(150, seed=4, n_every=15)
    gc, known = gc_track(packed_genome("ACGT", text), 1, 20, step_bp)
    assert list(zip(gc.tolist(), known.tolist(), strict=True)) == [
        counted(text[start : start + 20]) for start in range(0, 150, step_bp)
    ]


def test_track_by_name_tiles_by_default():
    class Opened:
        arrays = packed_genome("GGNA", "GCGCA")
        contigs = ContigNames(("one", "two"), Path("x"))

    gc, known = gc_track(Opened(), "two", 2)
    assert gc.tolist() == [2, 2, 0]
    assert known.tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((2, 5, 5), IndexError, "contig 2: the genome has contigs 0..1"),
        ((-1, 5, 5), IndexError, "contig -1"),
        (("one", 5, 5), ValueError, "contig 'one'"),
        ((0, 0, 5), ValueError, "window_bp = 0"),
        ((0, 5, 0), ValueError, "step_bp = 0"),
        ((0, 5, 1.5), ValueError, "step_bp = 1.5"),
    ],
)
def test_bad_tracks(arguments, error, words):
    with pytest.raises(error, match=words):
        gc_track(packed_genome("ACGT", "AC"), *arguments)
