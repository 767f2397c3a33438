"""The native packer against the numpy reference and against the text."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnagpt_fast.genome.records import PackedRecord
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.fasta_pack import END, HEADER, INVALID_LETTER, LONE_RETURN, FastaPacker, RunCollector
from tests.ops.packed_genomes import INSTRUCTION_SETS, random_text


@contextmanager
def chosen(implementation: str) -> Iterator[None]:
    """The reference, or the native packer with an instruction set."""
    with pytest.MonkeyPatch.context() as patch:
        if implementation in INSTRUCTION_SETS:
            patch.setenv("DNAGPT_FAST_CPU_ISA", implementation)
        with dispatch.using(fasta_pack="reference" if implementation == "reference" else "native"):
            yield


def all_of(packer: FastaPacker) -> tuple:
    packed, n_runs, mask_runs = packer.finish()
    numbers = packer.length_bp, packer.ambiguous, packer.line_feeds
    return (*numbers, packed.tolist(), n_runs.tolist(), mask_runs.tolist())


# The kernels read blocks of 64 letters: pieces of lines around this length, with everything that a file may contain.
PIECES = st.one_of(
    st.sampled_from(
        [
            "\n",
            "\r\n",
            "\r",
            "\n\n",
            ">",
            "\n>",
            " ",
            "\t",
            "R",
            "u",
            "x",
            "*",
            "\0",
            "\xe9",
            "A" * 63,
            "acgt" * 16,
        ]
    ),
    st.text("ACGTacgtNnU", max_size=70),
)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@given(
    pieces=st.lists(PIECES, max_size=12),
    at_line_start=st.booleans(),
    final=st.booleans(),
    start=st.integers(0, 5),
)
def test_native_equals_reference(instruction_set, pieces, at_line_start, final, start):
    text = "".join(pieces).encode("latin-1")
    start = min(start, len(text))
    with chosen(instruction_set):
        native = FastaPacker()
    with chosen("reference"):
        reference = FastaPacker()
    with chosen(instruction_set):
        assert native.feed(text, start, at_line_start, final) == reference.feed(
            text, start, at_line_start, final
        )
        assert all_of(native) == all_of(reference)


@pytest.mark.parametrize("implementation", ["reference", *INSTRUCTION_SETS])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_line_length(implementation, end):
    # lines of 1..70 letters put every number of line ends at every position of a block
    letters = random_text(700, seed=5, n_every=90)
    letters = letters[:200] + letters[200:500].lower() + letters[500:]
    with chosen(implementation):
        plain = FastaPacker()
        assert plain.feed(letters.encode()) == (700, END)
        expected = all_of(plain)
        for width in range(1, 71):
            lines = [letters[i : i + width] for i in range(0, 700, width)]
            packer = FastaPacker()
            text = (end.join(lines) + end).encode()
            assert packer.feed(text) == (len(text), END)
            found = all_of(packer)
            assert found[2] == len(lines)
            assert found[3:] == expected[3:]


@pytest.mark.parametrize("implementation", ["reference", *INSTRUCTION_SETS])
@pytest.mark.parametrize("place", [0, 1, 62, 63, 64, 65, 127, 128, 150])
@pytest.mark.parametrize(
    ("what", "stop", "offset"),
    [
        ("\n>", HEADER, 1),
        ("*", INVALID_LETTER, 0),
        (">", INVALID_LETTER, 0),
        ("\rA", LONE_RETURN, 0),
        ("\xff", INVALID_LETTER, 0),
    ],
)
def test_where_it_stops(implementation, place, what, stop, offset):
    text = ("C" * place + what + "G" * 100).encode("latin-1")
    with chosen(implementation):
        packer = FastaPacker()
        assert packer.feed(text, 0, False, True) == (place + offset, stop)
        assert packer.length_bp == place


@pytest.mark.parametrize("implementation", ["reference", *INSTRUCTION_SETS])
def test_a_carriage_return_at_the_end_waits_for_the_next_piece(implementation):
    with chosen(implementation):
        packer = FastaPacker()
        text = b"A" * 63 + b"\r"
        assert packer.feed(text, 0, True, False) == (63, END)
        assert packer.feed(text, 63, False, True) == (64, END)
        assert packer.length_bp == 63


@pytest.mark.parametrize("implementation", ["reference", *INSTRUCTION_SETS])
def test_an_empty_record(implementation):
    with chosen(implementation):
        packer = FastaPacker()
        assert packer.feed(b"") == (0, END)
        packed, n_runs, mask_runs = packer.finish()
    assert packed.shape == (0,)
    assert n_runs.shape == mask_runs.shape == (0, 2)


@pytest.mark.parametrize("implementation", ["reference", *INSTRUCTION_SETS])
@given(
    letters=st.text("ACGTNacgtnU", max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_the_result_does_not_depend_on_the_pieces(implementation, letters, cuts):
    with chosen(implementation):
        whole, pieces = FastaPacker(), FastaPacker()
        assert whole.feed(letters.encode()) == (len(letters), END)
        edges = [0, *sorted(min(cut, len(letters)) for cut in cuts), len(letters)]
        for begin, end in pairwise(edges):
            assert pieces.feed(letters.encode()[:end], begin, False, False) == (end, END)
    one, many = (PackedRecord.of("x", packer) for packer in (whole, pieces))
    assert one.length_bp == many.length_bp == len(letters)
    assert one.packed.tolist() == many.packed.tolist()
    codes = [{"T": 0, "U": 0, "C": 1, "A": 2, "G": 3, "N": 0}[letter.upper()] for letter in letters]
    codes += [0] * (-len(codes) % 4)
    assert one.packed.tolist() == [
        codes[i] << 6 | codes[i + 1] << 4 | codes[i + 2] << 2 | codes[i + 3] for i in range(0, len(codes), 4)
    ]
    for kind, is_in in (("n_blocks", lambda c: c in "Nn"), ("mask_blocks", str.islower)):
        wanted = np.array([is_in(letter) for letter in letters], bool)
        assert getattr(one, kind).tolist() == getattr(many, kind).tolist()
        covered = np.zeros(len(letters), bool)
        for begin, end in getattr(one, kind):
            assert begin < end
            covered[begin:end] = True
        assert (covered == wanted).all()
        assert (getattr(one, kind)[1:, 0] > getattr(one, kind)[:-1, 1]).all()  # runs are maximal


def test_a_run_that_ends_at_a_piece_edge():
    runs = RunCollector()
    runs.feed(np.array([False, True]), 0)
    runs.feed(np.array([False, True, True]), 2)
    runs.feed(np.array([True]), 5)
    assert runs.finish(6).tolist() == [[1, 2], [3, 6]]
