"""Log-likelihoods: sums over windows, independent of the batch, with and without logits."""

import math

import pytest
import torch

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.score import score, token_log_probs
from dnagpt_fast.model.token_windows import kmer_ids
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.combined_loss.occurring import plain_kmers
from dnagpt_fast.vocab import reverse_complement
from tests.model.test_embed import random_bases
from tests.tiny import NAMES, load_tiny


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


@pytest.fixture
def tokenizer():
    return KmerTokenizer(3)


def directly_computed(model, tokenizer, text, prefix, overlap):
    """The log-probability of every k-mer from a pass of the model over its window."""
    first = tokenizer.encode(prefix, to_tensor=False)
    ids = kmer_ids(tokenizer, text).tolist()
    room = model.max_len - len(first)
    total, done = 0.0, 0
    with torch.no_grad():
        while done < len(ids):
            begin = max(done - overlap, 0)
            window = first + ids[begin : begin + room]
            logs = model(torch.tensor([window]))[0].double().log_softmax(-1)
            for place in range(len(first) + done - begin, len(window)):
                if place:
                    total += float(logs[place - 1, window[place]])
            done = begin + len(window) - len(first)
    return total


@pytest.mark.parametrize(("prefix", "overlap"), [("<R>", 10), ("<R>", 0), ("", 5), ("<R><=>", None)])
def test_scores_are_the_sums_of_log_probabilities(tiny, tokenizer, prefix, overlap):
    model, texts = tiny.model(), random_bases(10, 500)
    scores = list(score(model, tokenizer, texts, prefix=prefix, overlap=overlap, max_tokens=90))
    width = model.max_len // 2 if overlap is None else overlap
    for text, one in zip(texts, scores, strict=True):
        assert one.log_likelihood == pytest.approx(
            directly_computed(model, tokenizer, text, prefix, width), rel=1e-5
        )
        assert one.length_bp == len(text)
        if prefix:
            assert one.scored_bp == len(text)
            assert one.scored_kmers == math.ceil(len(text) / 3)
            assert one.per_bp == one.log_likelihood / len(text)


def test_without_a_prefix_the_first_kmer_does_not_count(tiny, tokenizer):
    long, short = score(tiny.model(), tokenizer, ["ACGTTGCA", "ACG"], prefix="")
    assert (long.scored_kmers, long.scored_bp) == (2, 5)
    assert (short.scored_kmers, short.scored_bp, short.log_likelihood) == (0, 0, 0.0)
    assert math.isnan(short.per_bp)


def test_a_score_does_not_depend_on_its_batch(tiny, tokenizer):
    model, texts = tiny.model(), [*random_bases(25, 300), random_bases(1, 6000, seed=4)[0]]
    together = list(score(model, tokenizer, texts, max_tokens=700))
    assert list(score(model, tokenizer, texts, max_tokens=60)) == together
    assert list(score(model, tokenizer, texts[::-1], max_tokens=4096))[::-1] == together
    assert [next(score(model, tokenizer, [text])) for text in texts] == together


def test_the_kernels_score_without_logits(tiny, tokenizer, monkeypatch):
    """The same scores as from logits, to the accuracy of float32 sums, in any batch. Only the path with logits (above)
    must give equal bits in any batch: the interpreter multiplies with numpy, whose last bits depend on the shape on
    some machines (AVX2)."""
    model, texts = tiny.model(), random_bases(4, 200)
    plain = list(score(model, tokenizer, texts))
    monkeypatch.setattr(Inference, "logits", lambda *_: pytest.fail("logits were formed"))
    with dispatch.using(combined_loss="triton"):
        ours = list(score(model, tokenizer, texts))
        alone = [next(score(model, tokenizer, [text])) for text in texts]
    for a, b, c in zip(ours, alone, plain, strict=True):
        assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-6)
        assert a.log_likelihood == pytest.approx(c.log_likelihood, rel=1e-5)
        assert (a.scored_kmers, a.scored_bp) == (b.scored_kmers, b.scored_bp) == (c.scored_kmers, c.scored_bp)


def test_both_strands_are_averaged(tiny, tokenizer):
    model, texts = tiny.model(), random_bases(5, 90)
    both = list(score(model, tokenizer, texts, both_strands=True))
    one = list(score(model, tokenizer, texts))
    other = list(score(model, tokenizer, map(reverse_complement, texts)))
    for b, f, r in zip(both, one, other, strict=True):
        assert b.log_likelihood == pytest.approx((f.log_likelihood + r.log_likelihood) / 2)


def test_the_fixed_vocabulary_does_not_score_the_tail():
    tiny = load_tiny("tiny_nobias")
    tokenizer = KmerTokenizer(3, dynamic_kmer=False)  # 159 tokens: a subset of the model's ids
    (one,) = score(tiny.model(), tokenizer, ["ACGTTGCA"])
    assert (one.scored_kmers, one.scored_bp, one.length_bp) == (2, 6, 8)


def test_overlap_that_leaves_no_room_is_refused(tiny, tokenizer):
    with pytest.raises(ValueError, match=f"overlap = {tiny.config.max_len}"):
        score(tiny.model(), tokenizer, ["ACG"], overlap=tiny.config.max_len)


def test_equal_rows_of_the_head_are_computed_once(tiny, tokenizer):
    """The scores of a table in which most rows are equal: those of the plain softmax over all rows."""
    model = tiny.model()
    plain = plain_kmers(tokenizer.vocabulary)
    rest = torch.ones(len(tokenizer), dtype=torch.bool)
    rest[plain] = False
    with torch.no_grad():
        for table in (model.last_projection.weight, model.last_projection.bias):
            if table is not None:
                table[rest] = table[rest][0].clone()
    inference = Inference(model)
    assert len(inference.distinct_head.rows.weight) == 4**3 + 1
    ids = tokenizer.encode("<R>ACGTTTGACNACGTACGGGACAC")
    with torch.no_grad():
        wanted = model(ids[None])[0, :-1].double().log_softmax(-1).gather(1, ids[1:, None])[:, 0]
    got, counts = token_log_probs(inference, [ids.tolist()])
    assert counts.tolist() == [len(wanted)]
    torch.testing.assert_close(torch.from_numpy(got).double(), wanted, atol=1e-5, rtol=1e-5)


def test_a_head_without_equal_rows_is_computed_whole(tiny):
    assert Inference(tiny.model()).distinct_head is None
