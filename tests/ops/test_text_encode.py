"""The native encoder against the reference, on texts that are not among the recorded results of the official code."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.ops import TextEncoder, dispatch
from dnagpt_fast.vocab import RESERVED, Vocabulary

# bases, brackets, letters that are reserved names, and others of one to four bytes in UTF-8
TEXTS = st.text(st.sampled_from("ACGTNACGTN<>RMP0=acgtX!\0\né中\N{DNA DOUBLE HELIX}"), max_size=120)
NAMES = st.sampled_from([RESERVED, ("P", "AC", "ACGT", "é", "?"), ("0", "P")])


@given(text=TEXTS, k=st.integers(1, 6), dynamic=st.booleans(), names=NAMES, unknown_id=st.integers(0, 1))
def test_native_equals_reference(text, k, dynamic, names, unknown_id):
    encode = TextEncoder(Vocabulary(k, dynamic), names, unknown_id)
    ids, unknown = encode(text)
    with dispatch.using(text_encode="reference"):
        expected, expected_unknown = encode(text)
    assert ids.dtype == expected.dtype == torch.int64
    assert ids.tolist() == expected.tolist()
    assert unknown == expected_unknown


@pytest.mark.parametrize("k", range(1, 7))
def test_every_byte_as_every_letter(k):
    encode = TextEncoder(Vocabulary(k), RESERVED, 0)
    for place in range(k):
        text = "<>".join("A" * place + chr(byte) + "C" * (k - 1 - place) + "GT" for byte in range(128))
        ids, unknown = encode(text)
        with dispatch.using(text_encode="reference"):
            expected, expected_unknown = encode(text)
        assert ids.tolist() == expected.tolist()
        assert unknown == expected_unknown


def test_a_batch_is_padded_rows():
    tokenizer = KmerTokenizer()
    texts = ["<R>ACGTACGT", "", "ACGTAC" * 5]
    batch = tokenizer.encode_batch(texts)
    assert batch.shape == (3, 5)
    for row, text in zip(batch, texts, strict=True):
        assert torch.equal(row, tokenizer.encode(text, max_len=5, pad=True))
    assert torch.equal(tokenizer.encode_batch(texts, max_len=2), batch[:, :2])
    assert tokenizer.encode_batch([]).shape == (0, 0)


def test_what_is_no_text_is_refused():
    for text in (None, 3):
        with pytest.raises(TypeError, match="wanted a str"):
            KmerTokenizer().encode(text)
