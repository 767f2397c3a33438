"""Sequences in every form that a user holds: the same vectors, scores and ids as their text; errors name the row."""

import io

import numpy as np
import pytest
import torch

from dnagpt_fast import Genome, KmerTokenizer, attention_weights, base_probabilities, embed, score
from dnagpt_fast.model.generation import generate_sequences
from dnagpt_fast.model.prompts import prompt_ids, prompt_text
from dnagpt_fast.model.sequences import sequence_of, sequences_of, text_of
from tests.tiny import load_tiny

TEXTS = ["ACGTACGTTACGGA", "GGCATTACGN"]


@pytest.fixture(scope="module")
def model():
    return load_tiny("tiny_bias").model()


@pytest.fixture(scope="module")
def tokenizer():
    return KmerTokenizer(3)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("sequences") / "x.fa"
    path.write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(TEXTS)))
    return path


def of_packed(path):
    genome = Genome.open(path)
    return [genome["s0"], genome["s1"]]


def of_biopython(path):
    seqio = pytest.importorskip("Bio.SeqIO")
    return [record.seq for record in seqio.parse(io.StringIO(path.read_text()), "fasta")]


def of_biopython_records(path):
    return list(pytest.importorskip("Bio.SeqIO").parse(io.StringIO(path.read_text()), "fasta"))


def of_biopython_reader(path):
    return pytest.importorskip("Bio.SeqIO").parse(io.StringIO(path.read_text()), "fasta")


def of_pyfaidx(path):
    return [pytest.importorskip("pyfaidx").Fasta(str(path))[name][:] for name in ("s0", "s1")]


def of_pyfaidx_file(path):
    return pytest.importorskip("pyfaidx").Fasta(str(path))


def of_pysam(path):
    return pytest.importorskip("pysam").FastxFile(str(path))


def of_pandas(path):
    return pytest.importorskip("pandas").Series(TEXTS, index=["seq", "b"])


FORMS = {
    "list": lambda path: TEXTS,
    "tuple": lambda path: tuple(TEXTS),
    "iterator": lambda path: iter(TEXTS),
    "bytes": lambda path: [text.encode() for text in TEXTS],
    "array of text": lambda path: np.array(TEXTS),
    "array of objects": lambda path: np.array(TEXTS, dtype=object),
    "array of bytes": lambda path: np.array([text.encode() for text in TEXTS]),
    "arrays of letters": lambda path: [np.array(list(text)) for text in TEXTS],
    "arrays of letters as bytes": lambda path: [np.array(list(text), "S1") for text in TEXTS],
    "arrays of codes": lambda path: [np.frombuffer(text.encode(), np.uint8) for text in TEXTS],
    "genome": of_packed,
    "Biopython": of_biopython,
    "Biopython's records": of_biopython_records,
    "Biopython's reader": of_biopython_reader,
    "pyfaidx": of_pyfaidx,
    "pyfaidx's file": of_pyfaidx_file,
    "pysam": of_pysam,
    "pandas": of_pandas,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_its_text_gives(model, tokenizer, fasta, form):
    make = FORMS[form]
    for made, wanted in zip(
        embed(model, tokenizer, make(fasta)), embed(model, tokenizer, TEXTS), strict=True
    ):
        assert np.array_equal(made, wanted)
    assert list(score(model, tokenizer, make(fasta))) == list(score(model, tokenizer, TEXTS))
    assert tokenizer(make(fasta)).equal(tokenizer.encode_batch(TEXTS))
    assert [text_of(one) for _, one in sequences_of(make(fasta))] == TEXTS
    made, wanted = (
        [one.new_ids for one in generate_sequences(model, tokenizer, prompts, max_new_tokens=2, seed=3)]
        for prompts in (make(fasta), TEXTS)
    )
    assert made == wanted
    for one, text in zip(make(fasta), TEXTS, strict=True):
        assert base_probabilities(model, tokenizer, one).equal(base_probabilities(model, tokenizer, text))
        assert (
            attention_weights(model, tokenizer, one).tokens
            == attention_weights(model, tokenizer, text).tokens
        )
        assert tokenizer(one).equal(tokenizer.encode(text))
        assert tokenizer.tokenize(one) == tokenizer.tokenize(text)


def test_one_sequence_is_no_list(model, tokenizer, fasta):
    """Each of its letters was taken for a sequence, and of a mapping its names."""
    ones = [TEXTS[0], TEXTS[0].encode(), of_packed(fasta)[0], np.array(list(TEXTS[0]), "S1")]
    ones += [
        of_biopython(fasta)[0],
        of_biopython_records(fasta)[0],
        of_pyfaidx(fasta)[0],
        of_pyfaidx_file(fasta)["s0"],
    ]
    ones += [np.frombuffer(b"ACGT", np.uint8), {"a": "ACGT"}, Genome.open(fasta), None, 3]
    ones += [pytest.importorskip("pandas").DataFrame({"sequence": TEXTS}), np.array([TEXTS])]
    for given in ones:
        for ask in (embed, score):
            with pytest.raises(TypeError, match=r"sequences is "):
                ask(model, tokenizer, given)
        with pytest.raises(TypeError, match=r"prompts is "):
            generate_sequences(model, tokenizer, given, max_tokens=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["ACG", None], r"sequences\[1\]: NoneType 'None': wanted a str"),
        (["ACG", 3.5], r"sequences\[1\]: float '3.5'"),
        (["ACG", "GG", ""], r"sequences\[2\]: a sequence is empty"),
        (["ACG", "<R>ACG"], r"sequences\[1\]: .* contains tokens"),
        ([np.array([1, 2, 3])], r"sequences\[0\]: an array of int64 \(3,\)"),
        ([np.zeros(4, np.uint8)], r"sequences\[0\]: byte 0 is 0: wanted letters"),
        ([b"AC\xffT"], r"sequences\[0\]: byte 2 is 255"),
        ([np.array(["ACG", "ACG"])], r"sequences\[0\]: an array of <U3 \(2,\)"),
        ([["A", "C"]], r"sequences\[0\]: list"),
    ],
)
def test_errors_name_the_row(model, tokenizer, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        list(embed(model, tokenizer, given))


def test_a_sequence_that_is_too_short_for_the_vocabulary_is_named(model):
    with pytest.raises(ValueError, match=r"sequences\[1\]: 2 bp"):
        list(embed(model, KmerTokenizer(3, dynamic_kmer=False), ["ACG", "AC"]))


def test_an_object_that_only_looks_like_text_is_none():
    class Strange:
        def __str__(self):
            return "ACGT"

    with pytest.raises(TypeError, match="Strange 'ACGT'"):
        sequence_of(Strange())


def test_the_bases_of_a_prompt_are_those_of_every_command(tokenizer):
    assert prompt_text(tokenizer, "<R>acguRY<M>N") == "<R>ACGTNN<M>N"
    assert prompt_ids(tokenizer, ["<R>acgtac"]) == prompt_ids(tokenizer, ["<R>ACGTAC"])
    assert prompt_ids(tokenizer, ["R", "<>ACG"]) == [[21], tokenizer.encode("ACG").tolist()]
    for prompt, message in (
        ("<R>AC-T", r"prompts\[1\]: '-' in 'AC-T' is no base"),
        ("<r>ACG", r"prompts\[1\]: <r> is no token"),
        ("<R", r"prompts\[1\]: '<' in '<R'"),
        ("", r"prompts\[1\]: the prompt has no token"),
    ):
        with pytest.raises(ValueError, match=message):
            prompt_ids(tokenizer, ["<R>", prompt])
    with pytest.raises(ValueError, match=r"prompts\[0\]: .* has 4 bases, .* cut 1 bases"):
        prompt_ids(KmerTokenizer(3, dynamic_kmer=False), ["<R>ACGT"])


def test_a_tokenizer_is_called_and_shown(tokenizer):
    assert tokenizer("<R>ACG").equal(tokenizer.encode("<R>ACG"))
    assert tokenizer(["ACG"], max_len=3).shape == (1, 3)
    assert repr(tokenizer) == "KmerTokenizer(k=3, dynamic_kmer=True): 189 tokens, 34 of them reserved"
    assert "reserved_tokens=['P', 'R']" in repr(KmerTokenizer(2, ["P", "R"]))
    assert tokenizer("ACG").dtype == torch.int64
