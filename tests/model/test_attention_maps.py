"""Attention weights: those that the layers use, of every head, with the bases of each token."""

import numpy as np
import pytest
import torch

import dnagpt_fast as df
from dnagpt_fast import DNAGPT, KmerTokenizer
from dnagpt_fast.model.attention_maps import attention_weights
from dnagpt_fast.model.layers import merge_heads
from dnagpt_fast.ops.attention.op import attention_packed
from tests.tiny import NAMES, load_tiny

BASES = "ACGTNACGGTTACCATGACGTTGCAACGTAC"


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


@pytest.fixture
def tokenizer():
    return KmerTokenizer(3)


def test_weights_times_values_are_the_output_of_the_layers_attention(tiny, tokenizer):
    model = tiny.model()
    found = attention_weights(model, tokenizer, BASES)
    ids = tokenizer.encode("<R>" + BASES)[None]
    T = ids.shape[1]
    assert found.weights.shape == (model.num_layers, model.num_heads, T, T)
    assert found.weights.dtype == np.float32
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-6)
    assert not np.triu(found.weights, 1).any()
    with torch.no_grad():
        for number, block in enumerate(model.blocks, 1):
            x = block.ln_1(
                model.hidden_states(ids, layer=number - 1) if number > 1 else model.embeddings(ids)
            )
            qkv = block.attn.projection(x)
            mine = torch.from_numpy(found.weights[number - 1])[None] @ qkv[:, :, 2].transpose(1, 2)
            torch.testing.assert_close(
                merge_heads(mine), merge_heads(attention_packed(qkv)), atol=2e-5, rtol=2e-5
            )


def test_tokens_have_their_bases(tiny, tokenizer, tmp_path):
    model = tiny.model()
    found = df.attention_weights(model, tokenizer, BASES, layer=-1)
    assert found.layers == (model.num_layers,)
    assert found.n_prefix == 1
    assert (found.tokens[0], found.start_bp[0], found.end_bp[0]) == ("<R>", -1, -1)
    for token, start, end in list(zip(found.tokens, found.start_bp, found.end_bp, strict=True))[1:]:
        assert BASES[start:end] == token
    assert found.end_bp[-1] == len(BASES)
    (tmp_path / "x.fa").write_text(f">one\nACG{BASES}\n")
    with df.Genome.open(tmp_path / "x.fa") as genome:
        packed = attention_weights(model, tokenizer, genome.range("one", 3), layer=[-1])
    assert np.array_equal(packed.weights, found.weights)
    everything = attention_weights(model, tokenizer, BASES)
    assert np.array_equal(everything.weights[-1:], found.weights)
    assert attention_weights(model, tokenizer, BASES, prefix="", layer=1).n_prefix == 0


def test_what_cannot_be_shown_is_named(tokenizer):
    model = DNAGPT(len(tokenizer), max_len=8, num_layers=2, num_heads=2, embedding_dim=8).eval()
    assert attention_weights(model, tokenizer, "A" * 21).weights.shape == (2, 2, 8, 8)
    with pytest.raises(ValueError, match=r"22 bp are 8 k-mers: .* it reads 7 \(21 bp\) after the prefix"):
        attention_weights(model, tokenizer, "A" * 22)
    for layer in (0, 3, -3):
        with pytest.raises(ValueError, match=rf"layer = {layer}: wanted 1..2"):
            attention_weights(model, tokenizer, "ACGT", layer=layer)
    with pytest.raises(ValueError, match="layer is empty"):
        attention_weights(model, tokenizer, "ACGT", layer=[])
    with pytest.raises(ValueError, match="a sequence is empty"):
        attention_weights(model, tokenizer, "")
