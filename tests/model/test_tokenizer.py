"""The tokenizer: the recorded results of the official code, decoding, and other vocabularies."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.vocab import RESERVED, Vocabulary

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "tokenizer.json").read_text())
CASES = [(name, i) for name, entry in GOLDEN.items() for i in range(len(entry["cases"]))]
PADDED = [(name, i) for name, entry in GOLDEN.items() for i in range(len(entry["padded"]))]


def tokenizer_of(name):
    return KmerTokenizer(GOLDEN[name]["k"], RESERVED, GOLDEN[name]["dynamic_kmer"])


@pytest.mark.parametrize("name", GOLDEN)
def test_sizes_and_special_ids_are_the_official_ones(name):
    tokenizer, golden = tokenizer_of(name), GOLDEN[name]
    assert len(tokenizer) == golden["vocab_size"] == len(tokenizer.idx_to_token)
    assert (tokenizer.pad_id, tokenizer.unk_id) == (golden["pad_id"], golden["unk_id"])
    assert tokenizer.reserved_tokens == golden["reserved"]


@pytest.mark.parametrize(("name", "i"), CASES)
def test_golden_texts(name, i):
    tokenizer, case = tokenizer_of(name), GOLDEN[name]["cases"][i]
    assert tokenizer.tokenize(case["text"]) == case["pieces"]
    assert tokenizer.encode(case["text"], to_tensor=False) == case["ids"]
    assert tokenizer.encode(case["text"]).equal(torch.tensor(case["ids"], dtype=torch.long))
    assert tokenizer.decode(case["ids"]) == case["decoded"]
    assert tokenizer.decode(torch.tensor(case["ids"], dtype=torch.long)) == case["decoded"]
    assert [tokenizer.piece_to_id(piece) for piece in case["pieces"]] == case["ids"]


@pytest.mark.parametrize(("name", "i"), PADDED)
def test_golden_padding_and_cropping(name, i):
    case = GOLDEN[name]["padded"][i]
    ids = tokenizer_of(name).encode(case["text"], max_len=case["max_len"], pad=True, to_tensor=False)
    assert ids == case["ids"]


@pytest.mark.parametrize(("k", "dynamic"), [(k, dynamic) for k in (1, 2, 3) for dynamic in (True, False)])
def test_every_id_goes_to_its_piece_and_back(k, dynamic):
    tokenizer = KmerTokenizer(k, dynamic_kmer=dynamic)
    for token_id in range(len(tokenizer)):
        piece = tokenizer.id_to_piece(token_id)
        assert tokenizer.piece_to_id(piece) == token_id
        assert tokenizer.encode(piece, to_tensor=False) == [token_id]
        assert tokenizer.vocabulary.piece(token_id) == piece


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([f"<{name}>" for name in RESERVED]), st.text("NAGCT", min_size=1, max_size=40)
        ),
        max_size=12,
    ),
    st.integers(1, 6),
)
def test_a_known_text_survives_encoding(parts, k):
    text = "".join(parts)
    tokenizer = KmerTokenizer(k)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(1, 6), st.booleans())
def test_ids_are_the_ids_of_the_pieces_for_any_text(text, k, dynamic):
    tokenizer = KmerTokenizer(k, dynamic_kmer=dynamic)
    expected = [tokenizer.piece_to_id(piece) for piece in tokenizer.tokenize(text)]
    assert tokenizer.encode(text, to_tensor=False) == expected


def test_other_reserved_tokens_shift_the_ids_of_kmers():
    tokenizer = KmerTokenizer(2, ["0", "P", "R"])
    assert len(tokenizer) == 3 + 5 + 25
    assert tokenizer.encode("<R>A", to_tensor=False) == [2, 4]
    assert tokenizer.pad_id == 1


def test_max_len_without_padding_only_crops():
    tokenizer = KmerTokenizer(6)
    assert tokenizer.encode("<R>AGAGAA", max_len=1, to_tensor=False) == [21]
    assert tokenizer.encode("<R>AGAGAA", max_len=9, to_tensor=False) == [21, 8495]


def test_from_vocab_size_finds_both_published_vocabularies():
    assert KmerTokenizer.from_vocab_size(19_564).dynamic_kmer
    assert not KmerTokenizer.from_vocab_size(15_659).dynamic_kmer
    with pytest.raises(ValueError, match="100 entries"):
        KmerTokenizer.from_vocab_size(100)


def test_a_tokenizer_of_a_vocabulary_and_the_letters_of_its_kmers():
    tokenizer = KmerTokenizer.of(Vocabulary(2, dynamic=True))
    assert tokenizer.vocabulary == Vocabulary(2, dynamic=True)
    ids = tokenizer.encode("<R>ACG<P>TN")
    assert tokenizer.decode_bases(ids) == tokenizer.decode_bases(ids.tolist()) == "ACGTN"
    assert tokenizer.decode_bases([]) == ""
    with pytest.raises(IndexError, match="-1"):
        tokenizer.decode_bases([-1])


def test_an_unknown_chunk_is_logged_once(caplog):
    tokenizer = KmerTokenizer(6)
    with caplog.at_level(logging.WARNING):
        tokenizer.encode("<R>acgtacACGTAC")
        tokenizer.encode("<R>acgtac")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "1 chunk(s)" in caplog.text


def test_bad_input_is_named():
    tokenizer = KmerTokenizer(6)
    with pytest.raises(IndexError, match="19564"):
        tokenizer.id_to_piece(19_564)
    with pytest.raises(IndexError, match="-1"):
        tokenizer.decode(np.array([-1]))
    assert torch.equal(tokenizer.encode(b"ACGTAC"), tokenizer.encode("ACGTAC"))
    with pytest.raises(TypeError, match="wanted a str"):
        tokenizer.encode(3)
    with pytest.raises(ValueError, match="twice: R"):
        KmerTokenizer(6, ["P", "R", "R"])
    with pytest.raises(ValueError, match="lack P"):
        KmerTokenizer(6, ["R"])
    with pytest.raises(ValueError, match="k = 7"):
        KmerTokenizer(7)
