"""kmer_tokenize against ids computed from the text, with code that neither the kernel nor the reference uses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnagpt_fast.ops import dispatch, kmer_tokenize, report
from dnagpt_fast.vocab import Vocabulary
from tests.ops.packed_genomes import INSTRUCTION_SETS, oriented, packed_genome, random_text


@pytest.fixture(params=["reference", *INSTRUCTION_SETS])
def implementation(request, monkeypatch):
    """The reference, and the native kernels of each instruction set of this machine."""
    if request.param in INSTRUCTION_SETS:
        monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", request.param)
        assert report()["cpu_isa"] == request.param
    with dispatch.using(kmer_tokenize="reference" if request.param == "reference" else "native"):
        yield request.param


def ids_of(text: str, k: int, dynamic: bool) -> list[int]:
    vocabulary = Vocabulary(k, dynamic)
    return [vocabulary.kmer_id(text[i : i + k]) for i in range(0, len(text), k)]


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("k", range(1, 7))
@pytest.mark.parametrize("n_every", [0, 12])
def test_every_length_phase_and_orientation(implementation, k, dynamic, n_every):
    # 0..12 tokens exceed two 64-bit words for every k; 15..18, 31..34 and 63..66 exceed the blocks of the vector
    # kernels for k = 6; starts 0..4 are all four phases of a byte and the next byte
    text = random_text(420, seed=k, n_every=n_every)
    genome = packed_genome("ACG", text)
    lengths = [*range(13), 15, 16, 17, 18, 31, 32, 33, 34, 63, 64, 65, 66] if k == 6 else [*range(13), 25, 64]
    for n_tokens in lengths:
        start_bp = torch.arange(5).repeat(4)
        orientation = torch.arange(4).repeat_interleave(5)
        tokens = kmer_tokenize(
            genome, torch.ones(20, dtype=torch.int64), start_bp, n_tokens, orientation, k=k, dynamic=dynamic
        )
        assert tokens.dtype == torch.int32
        assert tokens.shape == (20, n_tokens)
        for row, start, turn in zip(tokens, start_bp.tolist(), orientation.tolist(), strict=True):
            assert row.tolist() == ids_of(oriented(text[start : start + n_tokens * k], turn), k, dynamic)


def test_an_n_at_every_place(implementation):
    # 60 bases = 10 six-mers; runs of 1..8 bases cross one or two k-mer boundaries
    plain = random_text(60, seed=1)
    texts = [plain[:i] + "N" * run + plain[i + run :] for run in range(1, 9) for i in range(60 - run + 1)]
    genome = packed_genome(*texts)
    contig = torch.arange(len(texts))
    for orientation in range(4):
        tokens = kmer_tokenize(genome, contig, torch.zeros_like(contig), 10, orientation)
        assert tokens.tolist() == [ids_of(oriented(text, orientation), 6, True) for text in texts]


@pytest.mark.parametrize("implementation", INSTRUCTION_SETS, indirect=True)  # the reference has no chunks
@pytest.mark.parametrize("n_every", [20, 5000])
def test_runs_of_n_over_several_chunks(implementation, n_every):
    # a chunk is 8,192 tokens of 49,152 bases: 25,000 tokens are more than three. Short runs are dense or far apart;
    # long ones begin the contig, end it, and cross the ends of chunks, counted from either end of the window
    text = random_text(150_011, seed=5, n_every=n_every)
    for start, end in (
        (0, 3001),
        (48_000, 99_999),
        (120_030, 120_059),
        (130_000, 130_030),
        (149_990, 150_011),
    ):
        text = text[:start] + "N" * (end - start) + text[end:]
    genome = packed_genome(text)
    for start_bp in (0, 11):
        for orientation in range(4):
            tokens = kmer_tokenize(genome, [0], [start_bp], 25_000, orientation, dtype=torch.uint16)
            window = oriented(text[start_bp : start_bp + 150_000], orientation)
            assert tokens[0].tolist() == ids_of(window, 6, True)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@given(data=st.data())
def test_native_equals_reference(instruction_set, data):
    texts = data.draw(st.lists(st.text("ACGTN", max_size=700), min_size=1, max_size=4))
    genome = packed_genome(*texts)
    k = data.draw(st.integers(1, 6))
    n_tokens = data.draw(st.integers(0, max(map(len, texts)) // k))
    fitting = [i for i, text in enumerate(texts) if len(text) >= n_tokens * k]
    contig = data.draw(st.lists(st.sampled_from(fitting), max_size=5))
    start = [data.draw(st.integers(0, len(texts[c]) - n_tokens * k)) for c in contig]
    orientation = np.array([data.draw(st.integers(0, 3)) for _ in contig], dtype=np.uint8)
    options = {
        "k": k,
        "dynamic": data.draw(st.booleans()),
        "dtype": data.draw(st.sampled_from([torch.uint16, torch.int32, torch.int64])),
    }
    arguments = (genome, np.array(contig, dtype=np.int32), start, n_tokens, orientation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DNAGPT_FAST_CPU_ISA", instruction_set)
        native = kmer_tokenize(*arguments, **options)
    with dispatch.using(kmer_tokenize="reference"):
        reference = kmer_tokenize(*arguments, **options)
    assert native.dtype == reference.dtype == options["dtype"]
    assert torch.equal(native.to(torch.int64), reference.to(torch.int64))


def test_nothing_after_the_windows_is_written(poisoned_memory):
    genome = packed_genome(random_text(100, seed=2))
    tokens = kmer_tokenize(genome, [0, 0], [0, 3], 16, dtype=torch.int64)
    assert tokens.max() < len(Vocabulary())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"contig": [0, 2]}, IndexError, "window 1: contig 2, the genome has contigs 0..1"),
        ({"contig": [-1, 0]}, IndexError, "window 0: contig -1"),
        ({"start_bp": [0, 41]}, IndexError, "window 1: 60 bp from 41 leave contig 1 of 100 bp"),
        ({"start_bp": [-1, 0]}, IndexError, "window 0: 60 bp from -1"),
        ({"start_bp": [0, 2**62]}, IndexError, "window 1"),
        ({"n_tokens": 2**47}, IndexError, "leave contig"),
        ({"n_tokens": -1}, ValueError, "n_tokens = -1"),
        ({"n_tokens": 1.0}, ValueError, "n_tokens = 1.0"),
        ({"start_bp": [0]}, ValueError, "contig has 2 entries, start_bp 1"),
        ({"orientation": [0]}, ValueError, "orientation 1"),
        ({"orientation": 4}, ValueError, "window 0: orientation 4, wanted 0..3"),
        ({"orientation": [0, -1]}, ValueError, "window 1: orientation -1"),
        ({"orientation": "forward"}, ValueError, "orientation is str"),
        ({"start_bp": [0.0, 1.0]}, ValueError, "start_bp is float64"),
        (
            {"contig": torch.zeros(2, 1, dtype=torch.int64)},
            ValueError,
            r"contig is torch.int64 of shape \(2, 1\)",
        ),
        ({"contig": 1}, ValueError, "contig is int"),
        ({"k": 0}, ValueError, r"k = 0: wanted an integer 1\.\.6"),
        ({"k": 7}, ValueError, "k = 7"),
        ({"dtype": torch.int16}, ValueError, "dtype torch.int16"),
    ],
)
def test_bad_arguments(implementation, change, error, words):
    genome = packed_genome("A" * 60, "C" * 100)
    arguments = {"contig": [0, 1], "start_bp": [0, 40], "n_tokens": 10, "orientation": 0, **change}
    with pytest.raises(error, match=words):
        kmer_tokenize(genome, **arguments)


def test_a_genome_whose_arrays_contradict_each_other():
    genome = packed_genome("ACGTNNAC")
    for change, words in [
        ({"length_bp": torch.tensor([9])}, "do not fit"),
        ({"n_block_end_bp": torch.tensor([9])}, r"N block 0 \[4, 9\)"),
        ({"n_block_index": torch.tensor([0, 2])}, "n_block_index ends with 2"),
        ({"n_block_index": torch.tensor([0])}, "wanted C, C and C"),
        ({"length_bp": torch.tensor([8], dtype=torch.int32)}, "length_bp is torch.int32"),
    ]:
        broken = type(genome)(
            **{**{name: getattr(genome, name) for name in genome.__dataclass_fields__}, **change}
        )
        with pytest.raises(ValueError, match=words):
            kmer_tokenize(broken, [0], [0], 1)


def test_the_genome_may_be_a_genome_with_arrays():
    class Opened:
        arrays = packed_genome("ACGTAC")

    assert kmer_tokenize(Opened(), [0], [0], 1).tolist() == [[Vocabulary().kmer_id("ACGTAC")]]
