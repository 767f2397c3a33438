"""The window sampler: its generator against published vectors, its intervals against brute force, its
guarantees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnagpt_fast.genome.intervals import (
    Intervals,
    UnknownBases,
    WeightedPlaces,
    allowed_starts,
    outside,
    tile,
)
from dnagpt_fast.genome.sampler import (
    RANKS_OF_THE_LEAST,
    WindowSampler,
    multiply_high,
    philox4x32,
    ranks_of,
    thresholds,
)
from tests.genome.synthetic import packed_genome, random_letters

EMPTY = np.zeros(0, dtype=np.int64)
NOTHING = Intervals(EMPTY, EMPTY, EMPTY)


def intervals(*rows: tuple[int, int, int]) -> Intervals:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Intervals(columns[:, 0], columns[:, 1], columns[:, 2])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    words = philox4x32(tuple(np.array([word]) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == expected


WORD = st.integers(0, 2**32 - 1)


@given(WORD, WORD, st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_multiply_high_is_the_upper_half_of_the_128_bit_product(low, high, factor):
    one = [np.array([value], dtype=np.uint64) for value in (low, high, factor)]
    assert int(multiply_high(*one)[0]) == ((high * 2**32 + low) * factor) >> 64


def brute_force_starts(
    letters: list[str], held_out: Intervals, length_bp: int, max_n_bp: int
) -> set[tuple[int, int]]:
    allowed = set()
    for contig, text in enumerate(letters):
        mine = held_out.contig == contig
        for start in range(len(text) - length_bp + 1):
            clear = np.all((held_out.end_bp[mine] <= start) | (held_out.start_bp[mine] >= start + length_bp))
            if clear and text[start : start + length_bp].count("N") <= max_n_bp:
                allowed.add((contig, start))
    return allowed


@given(
    st.lists(st.text("ACGN", max_size=40), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=300)
def test_allowed_starts_are_those_of_brute_force(letters, length_bp, max_n_bp, random):
    ranges = []
    for contig, text in enumerate(letters):
        for _ in range(random.randint(0, 2) if text else 0):
            start = random.randrange(len(text))
            ranges.append((contig, start, random.randint(start + 1, len(text))))
    random.shuffle(ranges)
    held_out = intervals(*ranges)
    genome = packed_genome(letters)
    found = allowed_starts(genome, outside(held_out, genome.length_bp.numpy()), length_bp, max_n_bp)
    listed = [
        (int(c), start)
        for c, first, end in zip(found.contig, found.start_bp, found.end_bp, strict=True)
        for start in range(first, end)
    ]
    assert listed == sorted(brute_force_starts(letters, held_out, length_bp, max_n_bp))


@given(st.text("ACGN", min_size=1, max_size=60), st.integers(1, 20))
@settings(deadline=None)
def test_unknown_bases_counts_as_str_count_does(text, length_bp):
    starts = np.arange(max(len(text) - length_bp + 1, 0))
    counted = UnknownBases(packed_genome(["ACN", text])).count(np.ones_like(starts), starts, length_bp)
    assert counted.tolist() == [text[s : s + length_bp].count("N") for s in starts]


def test_every_allowed_start_is_drawn_and_no_other():
    rng = np.random.default_rng(0)
    letters = [random_letters(rng, 40, 2, 6), random_letters(rng, 7), random_letters(rng, 3)]
    held_out = intervals((0, 10, 15))
    sampler = WindowSampler([packed_genome(letters)], 6, seed=3, held_out=[held_out], max_n_share=0.2)
    windows = sampler.sample(0, 4000)
    drawn = set(zip(windows.contig.tolist(), windows.start_bp.tolist(), strict=True))
    # About 25 starts in 4,000 draws: the chance that one is missed is below 1e-60.
    assert drawn == brute_force_starts(letters, held_out, 6, 1)
    assert set(windows.orientation.tolist()) == {0, 1, 2, 3}


def test_a_sample_depends_on_seed_and_index_alone():
    genome = packed_genome([random_letters(np.random.default_rng(1), 5000, 3, 50)])
    sampler = WindowSampler([genome], 60, seed=11)
    whole = sampler.sample(0, 64)
    for world_size in (1, 2, 4):
        share = 64 // world_size
        parts = [sampler.sample(rank * share, share) for rank in range(world_size)]
        for name in ("genome", "contig", "start_bp", "orientation"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    other = WindowSampler([genome], 60, seed=12).sample(0, 64)
    assert not torch.equal(other.start_bp, whole.start_bp)


def scalar_sample(sampler: WindowSampler, index: int) -> tuple[int, int, int, int]:
    """The docstring of sampler.py as code: one sample at a time with Python's integers."""
    c, k = [index % 2**32, index >> 32, 0, 0], [sampler.seed % 2**32, sampler.seed >> 32]
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right % 2**32, (left >> 32) ^ c[3] ^ k[1], left % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    tables = sampler.tables
    genome = sum(c[0] >= int(entry) for entry in tables.genome_threshold)
    first, last = (int(tables.interval_index[g]) for g in (genome, genome + 1))
    before, after = int(tables.rank_before[first]), int(tables.rank_before[last])
    rank = before + (((c[2] << 32 | c[1]) * (after - before)) >> 64)
    interval = max(i for i in range(first, last) if tables.rank_before[i] <= rank)
    inside = (rank - int(tables.rank_before[interval])) // int(tables.ranks_per_start[interval])
    start_bp = int(tables.start_bp[interval]) + inside
    turn = sum(c[3] >= int(entry) for entry in tables.orientation_threshold)
    return genome, int(tables.contig[interval]), start_bp, (0, 1, 3, 2)[turn]


def test_the_samples_have_not_changed():
    """The definition of a run's data: a change here breaks every resumed run and every other device's sampler."""
    genomes = [
        packed_genome(["ACGT" * 1000, "GGGT" * 500]),
        packed_genome(["TTTT" * 250 + "N" * 50 + "ACGT" * 250]),
    ]
    sampler = WindowSampler(
        genomes, 60, seed=0x1234_5678_9ABC_DEF0, weights=[3, 1], reverse_complement_share=0.25
    )
    first = 2**32 - 4  # on both sides of the counter's carry
    windows = sampler.sample(first, 8)
    columns = (windows.genome, windows.contig, windows.start_bp, windows.orientation)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert rows == [scalar_sample(sampler, first + i) for i in range(8)]
    assert rows == GOLDEN


GOLDEN = [
    (0, 0, 1869, 3),
    (0, 1, 1572, 1),
    (0, 0, 429, 3),
    (0, 0, 198, 1),
    (0, 1, 373, 2),
    (0, 1, 52, 2),
    (1, 0, 1972, 1),
    (0, 0, 67, 1),
]


def test_weights_and_shares_are_kept():
    genomes = [packed_genome(["ACGT" * 100]), packed_genome(["ACGT" * 1000])]
    count = 40_000
    sampler = WindowSampler(
        genomes, 12, seed=5, weights=[0.3, 0.1], reversed_share=0.5, reverse_complement_share=0.2
    )
    windows = sampler.sample(0, count)
    expected = {0: 0.4, 1: 0.4, 3: 0.1, 2: 0.1}
    for orientation, share in expected.items():
        # Five standard deviations: one failure in some two million seeds, and the seed is fixed.
        drawn = int((windows.orientation == orientation).sum())
        assert abs(drawn - count * share) < 5 * (count * share * (1 - share)) ** 0.5
    first = int((windows.genome == 0).sum())
    assert abs(first - count * 0.75) < 5 * (count * 0.75 * 0.25) ** 0.5


@pytest.mark.parametrize(("share", "orientations"), [(0.0, {0}), (1.0, {1})])
def test_shares_of_0_and_1_are_exact(share, orientations):
    sampler = WindowSampler(
        [packed_genome(["ACGT" * 9])], 4, seed=0, reversed_share=share, reverse_complement_share=0
    )
    assert set(sampler.sample(0, 5000).orientation.tolist()) == orientations


def test_thresholds_of_word_comparisons():
    assert thresholds([1, 1]).tolist() == [2**31]
    assert thresholds([1, 0]).tolist() == [2**32]
    assert thresholds([0, 1]).tolist() == [0]


def test_starts_beyond_32_bits_are_reached():
    """A contig of 2^33 bp: only its N blocks and length are read, so it needs no bases."""
    genome = packed_genome(["ACGT"])
    long = type(genome)(**{**vars(genome), "length_bp": torch.tensor([2**33])})
    start = WindowSampler([long], 600, seed=1).sample(0, 1000).start_bp
    assert int(start.max()) > 0.98 * 2**33
    assert 0.47 < float(start.double().mean()) / 2**33 < 0.53


def test_tiles_are_adjacent_and_leave_n_out():
    genome = packed_genome(["A" * 10 + "N" * 6 + "C" * 14])
    tiles = tile(genome, intervals((0, 1, 30)), 5, 1)
    assert tiles.start_bp.tolist() == [1, 6, 16, 21]
    assert tiles.end_bp.tolist() == [6, 11, 21, 26]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length_bp": 41}, "chrSmall: no window of 41 bp fits: its longest contig has 40 bp"),
        (
            {"held_out": [intervals((0, 0, 35))], "length_bp": 6},
            "longest piece outside the held-out ranges 5 bp",
        ),
        ({"seed": -1}, "seed -1: wanted 0 <= seed < 2"),
        ({"weights": [0.0]}, "weight 0.0"),
        ({"weights": [1.0, 2.0]}, "2 weights"),
        ({"reversed_share": 1.5}, "reversed_share = 1.5: wanted 0..1"),
        ({"length_bp": 0}, "window length 0"),
    ],
)
def test_impossible_settings_are_refused_before_anything_starts(change, message):
    arguments = {"length_bp": 4, "seed": 0, "labels": ["chrSmall"], **change}
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        WindowSampler([packed_genome(["ACGT" * 10])], **arguments)


def test_a_genome_of_n_has_no_window():
    with pytest.raises(ValueError, match="a window may have at most 0 unknown bases"):
        WindowSampler([packed_genome(["N" * 100])], 10, seed=0)


def test_indices_out_of_range_are_refused():
    sampler = WindowSampler([packed_genome(["ACGT" * 10])], 4, seed=0)
    assert len(sampler.sample(2**64 - 2, 2).start_bp) == 2
    with pytest.raises(ValueError, match="wanted indices"):
        sampler.sample(2**64 - 2, 3)
    with pytest.raises(ValueError, match="wanted indices"):
        sampler.sample(-1, 3)


def disjoint_places(
    rng: np.random.Generator, lengths: list[int], weights: tuple[float, ...]
) -> WeightedPlaces:
    """Random disjoint intervals on contigs of these lengths, each with one of the weights."""
    rows = []
    for contig, length in enumerate(lengths):
        edges = np.sort(rng.choice(length + 1, size=min(4, length + 1) // 2 * 2, replace=False))
        rows += [(contig, int(a), int(b)) for a, b in edges.reshape(-1, 2)]
    return WeightedPlaces(intervals(*rows), rng.choice(weights, size=len(rows)))


def weight_at(places: WeightedPlaces, contig: int, base: int) -> float:
    at = places.intervals
    inside = (at.contig == contig) & (at.start_bp <= base) & (base < at.end_bp)
    return float(places.weight[inside][0]) if inside.any() else 1.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(deadline=None, max_examples=200)
def test_every_start_has_the_ranks_of_its_weight(seed, length_bp):
    rng = np.random.default_rng(seed)
    letters = [random_letters(rng, int(n), 1, 4) for n in rng.integers(10, 40, size=3)]
    places = [
        disjoint_places(rng, [len(text) for text in letters], weights) for weights in ((0.5, 4.0), (0.0, 3.0))
    ]
    genome, held_out = packed_genome(letters), intervals((1, 3, 9))
    wanted = {
        start: weight
        for start in brute_force_starts(letters, held_out, length_bp, 1)
        if (weight := np.prod([weight_at(each, start[0], start[1] + length_bp // 2) for each in places])) > 0
    }
    arguments = {"seed": 1, "held_out": [held_out], "places": [places], "max_n_share": 1.99 / length_bp}
    if length_bp == 1:
        arguments["max_n_share"] = 1.0
    if not wanted:
        with pytest.raises(ValueError, match="weight of every allowed window is 0"):
            WindowSampler([genome], length_bp, **arguments)
        return
    tables = WindowSampler([genome], length_bp, **arguments).tables
    found = {}
    for contig, first, before, after, each in zip(
        tables.contig,
        tables.start_bp,
        tables.rank_before,
        tables.rank_before[1:],
        tables.ranks_per_start,
        strict=False,
    ):
        for start in range(first, first + (after - before) // each):
            assert (contig, start) not in found
            found[int(contig), int(start)] = int(each)
    least = min(wanted.values())
    equal = len(set(wanted.values())) == 1
    assert found == {s: 1 if equal else round(w / least * RANKS_OF_THE_LEAST) for s, w in wanted.items()}


def test_weighted_places_are_drawn_in_proportion():
    """A tenth of the starts weighs ten times as much: 10 / 19 of the samples, within 4 standard deviations."""
    places = WeightedPlaces(intervals((0, 100, 200)), np.array([10.0]))
    sampler = WindowSampler([packed_genome(["ACGT" * 250])], 1, seed=5, places=[[places]])
    start = sampler.sample(0, 20_000).start_bp
    share = ((start >= 100) & (start < 200)).double().mean()
    assert abs(share - 1000 / 1900) < 4 * np.sqrt(0.25 / 20_000)


def test_places_that_all_weigh_the_same_change_no_sample():
    genome = packed_genome([random_letters(np.random.default_rng(1), 5000, 3, 50)])
    places = WeightedPlaces(intervals((0, 0, 5000)), np.array([7.0]))
    weighted, plain = (WindowSampler([genome], 60, seed=11, places=p) for p in ([[places]], None))
    assert torch.equal(weighted.sample(0, 100).start_bp, plain.sample(0, 100).start_bp)


def test_weights_that_span_too_much_are_refused():
    with pytest.raises(ValueError, match=r"here: weights of places from 1e-18 to 1: wanted a smaller ratio"):
        ranks_of(np.array([1e-18, 1.0]), np.array([1000, 1000]), "here")
