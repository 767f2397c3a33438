"""Embeddings: pooled hidden states, independent of the batch, in bounded memory."""

import numpy as np
import pytest
import torch

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.model import inference
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.score import score
from dnagpt_fast.model.token_windows import clean_bases, kmer_ids
from dnagpt_fast.vocab import reverse_complement
from tests.tiny import NAMES, load_tiny


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


@pytest.fixture
def tokenizer():
    return KmerTokenizer(3)


def random_bases(count, longest, seed=2):
    """Sequences of 1..longest bases, a tenth of them N."""
    generator = np.random.default_rng(seed)
    return [
        "".join(generator.choice(list("ACGTACGTN"), generator.integers(1, longest + 1))) for _ in range(count)
    ]


def directly_computed(model, tokenizer, text, layer, pooling, prefix="<R>"):
    """One window at a time through `hidden_states` of the model itself."""
    first = tokenizer.encode(prefix, to_tensor=False)
    ids = kmer_ids(tokenizer, text).tolist()
    room = model.max_len - len(first)
    with torch.no_grad():
        states = [
            model.hidden_states(torch.tensor([first + ids[i : i + room]]), layer=layer)[0, len(first) :]
            for i in range(0, len(ids), room)
        ]
    states = torch.cat(states)
    return {"mean": states.mean(0), "max": states.amax(0), "last": states[-1]}[pooling].numpy()


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_vectors_are_the_pooled_states(tiny, tokenizer, layer, pooling):
    """Up to 400 bp = 134 tokens of k = 3: more than three windows of the tiny models."""
    model, texts = tiny.model(), random_bases(12, 400)
    vectors = list(embed(model, tokenizer, texts, layer=layer, pooling=pooling, max_tokens=100))
    assert len(vectors) == len(texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert vector.dtype == np.float32
        np.testing.assert_allclose(
            vector, directly_computed(model, tokenizer, text, layer, pooling), atol=2e-5, rtol=1e-4
        )


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_a_vector_does_not_depend_on_its_batch(tiny, tokenizer, pooling):
    """The same bits alone, in other orders, in batches of other sizes, one of them with a sequence of many chunks."""
    model, texts = tiny.model(), [*random_bases(25, 300), random_bases(1, 9000, seed=4)[0] * 2]
    together = list(embed(model, tokenizer, texts, pooling=pooling, max_tokens=700))
    for other in (
        list(embed(model, tokenizer, texts, pooling=pooling, max_tokens=50)),
        list(embed(model, tokenizer, texts[::-1], pooling=pooling, max_tokens=4096))[::-1],
        [next(embed(model, tokenizer, [text], pooling=pooling)) for text in texts],
    ):
        for one, two in zip(together, other, strict=True):
            assert np.array_equal(one, two)


def test_passes_on_the_cpu_are_small_and_use_this_gelu(tokenizer, monkeypatch):
    rows, gelus = [], []
    hidden_rows, gelu = inference.Inference.hidden_rows, inference.gelu

    def counted(self, sequences, layers):
        rows.append(sum(map(len, sequences)))
        return hidden_rows(self, sequences, layers)

    monkeypatch.setattr(inference.Inference, "hidden_rows", counted)
    monkeypatch.setattr(inference, "gelu", lambda x: gelus.append(len(x)) or gelu(x))
    model = load_tiny(NAMES[0]).model()
    list(embed(model, tokenizer, random_bases(60, 300)))
    assert sum(rows) > 2 * inference.CPU_ROWS > 1.8 * max(rows)
    assert len(gelus) == model.num_layers * len(rows)
    rows.clear()
    list(embed(model, tokenizer, random_bases(60, 300), max_tokens=500))
    assert max(rows) <= 500


def test_with_both_strands_a_sequence_and_its_reverse_complement_have_one_vector(tiny, tokenizer):
    texts = random_bases(6, 200)
    model = tiny.model()
    forward = list(embed(model, tokenizer, texts, both_strands=True))
    backward = list(embed(model, tokenizer, map(reverse_complement, texts), both_strands=True))
    single = list(embed(model, tokenizer, texts))
    turned = list(embed(model, tokenizer, map(reverse_complement, texts)))
    for f, b, one, two in zip(forward, backward, single, turned, strict=True):
        assert np.array_equal(f, b)
        np.testing.assert_allclose(f, (one + two) / 2, atol=1e-6)


def test_memory_holds_a_bounded_number_of_sequences(tiny, tokenizer):
    """The input is read while the output is consumed: 8 batches of 64 tokens are about 20 sequences of 81 bp ahead."""
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield "ACG" * 27

    vectors = embed(tiny.model(), tokenizer, endless(), max_tokens=64)
    for _ in range(30):
        next(vectors)
    assert 30 <= read < 30 + 2 * 8 * 64 // 28 + 3


def test_soft_mask_and_iupac_letters(tiny, tokenizer, caplog):
    model = tiny.model()
    one, two, three = embed(model, tokenizer, ["ACGTNN", "acgtNN", "ACGTRY"])
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)
    assert "2 letter(s)" in caplog.text
    assert clean_bases("acguNR") == "ACGTNN"


def test_fixed_vocabulary_leaves_the_tail_out():
    tokenizer = KmerTokenizer(3, dynamic_kmer=False)
    assert kmer_ids(tokenizer, "ACGTA").tolist() == kmer_ids(tokenizer, "ACG").tolist()
    with pytest.raises(ValueError, match="2 bp"):
        kmer_ids(tokenizer, "AC")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "median"}, "pooling = 'median'"),
        ({"layer": 9}, "layer = 9"),
        ({"sequences": ["<R>ACG"]}, "contains tokens"),
        ({"sequences": [""]}, "empty"),
        ({"prefix": "<R><what>"}, "'wha' is no token"),
        ({"prefix": "<R>" * 60}, "overlap = 0"),
    ],
)
def test_what_cannot_be_embedded_is_named(tiny, tokenizer, settings, message):
    settings = {"sequences": ["ACG"], **settings}
    with pytest.raises(ValueError, match=message):
        list(embed(tiny.model(), tokenizer, **settings))


def test_one_text_is_no_list_of_sequences(tiny, tokenizer):
    """Each of its letters was taken for a sequence."""
    for ask in (embed, score):
        with pytest.raises(TypeError, match=r"sequences is one str: wanted a list of them"):
            ask(tiny.model(), tokenizer, "ACGTACGT")


@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_several_layers_in_one_pass_are_the_layers_alone(tiny, tokenizer, pooling, both_strands):
    model, texts = tiny.model(), random_bases(6, 200)
    layers, settings = [-1, 0, 1, 1], {"pooling": pooling, "both_strands": both_strands, "max_tokens": 100}
    together = list(embed(model, tokenizer, texts, layer=layers, **settings))
    for number, layer in enumerate(layers):
        alone = embed(model, tokenizer, texts, layer=layer, **settings)
        for several, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(several[number], one)


def test_no_layer_or_one_that_is_not_there_is_refused(tiny, tokenizer):
    for layer, message in (([], "layer is empty"), ([0, 99], "layer = 99")):
        with pytest.raises(ValueError, match=message):
            embed(tiny.model(), tokenizer, ["ACG"], layer=layer)
