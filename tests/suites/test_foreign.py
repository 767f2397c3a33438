"""Foreign causal models: a tiny random GPT-2 with a tokenizer of letters, against plain calls of transformers."""

import json

import numpy as np
import pytest
import torch

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.genome import Genome
from dnagpt_fast.suites.foreign import ForeignModel
from dnagpt_fast.suites.job import Choices, evaluate
from dnagpt_fast.suites.subjects import HowToRun, OwnModel
from dnagpt_fast.suites.task import Source
from dnagpt_fast.vocab import reverse_complement
from dnagpt_fast.weights.forms import convert
from tests.suites.benchmark_data import bases, gue_folder, small_model

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
RNG = np.random.default_rng(1)


def letters(folder, alphabet="ACGTN"):
    """A tokenizer of single letters, with an unknown token."""
    vocabulary = {letter: i for i, letter in enumerate(("?", *alphabet))}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    made.decoder = tokenizers.decoders.Fuse()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?").save_pretrained(folder)


def gpt2(folder, alphabet="ACGTN", positions=64):
    torch.manual_seed(3)
    shape = transformers.GPT2Config(vocab_size=6, n_positions=positions, n_embd=16, n_layer=2, n_head=2)
    transformers.GPT2LMHeadModel(shape).save_pretrained(folder)
    letters(folder, alphabet)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return gpt2(tmp_path_factory.mktemp("gpt2") / "model")


@pytest.fixture(scope="module")
def model(folder):
    return ForeignModel(f"hf:{folder}", HowToRun())


def plain(model, text):
    ids = torch.tensor([["?ACGTN".index(letter) for letter in text]])
    with torch.no_grad():
        return ids, model._model(input_ids=ids, output_hidden_states=True)


def test_likelihoods_are_those_of_the_library(model):
    texts = [bases(RNG, length) for length in (30, 64, 12, 30)]
    found = model.log_likelihoods(texts)
    for text, (nats, scored) in zip(texts, found, strict=True):
        ids, out = plain(model, text)
        logs = out.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
        assert nats == pytest.approx(float(logs), rel=1e-5)
        assert scored == len(text) - 1  # no token before the first letter


def test_a_long_text_is_scored_in_windows_with_context(model):
    text = bases(RNG, 150)
    ((nats, scored),) = model.log_likelihoods([text])
    # windows of 64 tokens, of which 32 are context after the first
    total = 0.0
    for start, new in ((0, 1), (32, 32), (64, 32), (86, 42)):
        ids, out = plain(model, text[start : start + 64])
        logs = out.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        total += float(logs[new - 1 :].sum()) if start != 86 else 0.0
    ids, out = plain(model, text[96:150])
    total += float(out.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[31:, 0].sum())
    assert scored == 149
    assert nats == pytest.approx(total, rel=1e-4)


def test_vectors_are_means_of_the_hidden_states(model):
    texts = [bases(RNG, length) for length in (20, 33, 20)]
    found = model.vectors(texts)
    assert found.shape == (3, 3, 16)
    for text, rows in zip(texts, found, strict=True):
        _, out = plain(model, text)
        wanted = torch.stack([layer[0].mean(0) for layer in out.hidden_states])
        np.testing.assert_allclose(rows, wanted.numpy(), atol=1e-5)


def test_both_strands_and_variants(folder, tmp_path):
    both = ForeignModel(f"hf:{folder}", HowToRun(both_strands=True))
    one = ForeignModel(f"hf:{folder}", HowToRun())
    text = bases(RNG, 40)
    pair = one.log_likelihoods([text, reverse_complement(text)])
    np.testing.assert_allclose(both.log_likelihoods([text])[0], pair.mean(0), rtol=1e-6)
    (tmp_path / "g.fa").write_text(f">g\n{text}\n")
    with Genome.open(tmp_path / "g.fa") as genome:
        other = "C" if text[20] != "C" else "G"
        same, found = one.variant_scores(genome, [("g", 20, text[20], text[20]), ("g", 20, text[20], other)])
    changed = text[:20] + other + text[21:]
    nats = one.log_likelihoods([changed, text, reverse_complement(changed), reverse_complement(text)])[:, 0]
    assert same == 0.0
    assert found == pytest.approx((nats[0] - nats[1] + nats[2] - nats[3]) / 2, abs=1e-4)


def test_continuations_are_greedy(model):
    text = bases(RNG, 20)
    (made,) = model.continuations([text], 8)
    for letter in made:
        _, out = plain(model, text)
        assert letter == "?ACGTN"[int(out.logits[0, -1].argmax())]
        text += letter


def test_our_own_model_saved_for_the_library_has_the_same_answers(tmp_path):
    folder = small_model(tmp_path)
    convert(folder, tmp_path / "hf", "hf")
    own = OwnModel(str(folder), HowToRun(prefix=""))
    other = ForeignModel(f"hf:{tmp_path / 'hf'}", HowToRun())
    texts = [bases(RNG, length) for length in (30, 31, 90)]
    other.check([(text, "here") for text in texts])
    np.testing.assert_allclose(other.log_likelihoods(texts), own.log_likelihoods(texts), rtol=1e-5)
    np.testing.assert_allclose(other.vectors(texts), own.vectors(texts), atol=1e-5)


def test_a_prompt_longer_than_the_model_is_cut_at_its_start(model):
    text = bases(RNG, 200)
    (made,) = model.continuations([text], 4)
    (same,) = model.continuations([text[-60:]], 4)
    assert made == same


@pytest.mark.slow
def test_a_foreign_model_in_a_suite(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("dnagpt_fast.suites.job.write_report", lambda *_: None)
    monkeypatch.setattr("dnagpt_fast.suites.labelled.KMERS", (2,))
    data = gue_folder(tmp_path / "gue")
    name = f"hf:{folder}"
    report = evaluate("gue", Source(data), Choices((name,), resamples=10), tmp_path / "report")
    methods = [one["method"] for one in report["tasks"][0]["results"]]
    assert methods[-2:] == [f"{name}, frozen", f"{name}, random weights, frozen"]
    assert report["models"][name]["class"] == "GPT2LMHeadModel"
    with pytest.raises(ValueError, match="--way tuned is for our own models"):
        evaluate("gue", Source(data), Choices((name,), ways=("tuned",)), tmp_path / "tuned")


def test_a_tokenizer_that_does_not_know_a_letter(tmp_path):
    folder = gpt2(tmp_path / "model", "ACGXY")
    data = gue_folder(tmp_path / "gue")
    with pytest.raises(LabelError, match=r"\.csv:\d+: the tokenizer of hf:.* cannot read it .*unknown token"):
        evaluate("gue", Source(data), Choices((f"hf:{folder}",)), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_folders_that_hold_no_causal_model(tmp_path):
    with pytest.raises(ValueError, match=r"no config.json in"):
        ForeignModel(f"hf:{tmp_path}", HowToRun())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "run.Config"}})
    )
    (tmp_path / "run.py").write_text("raise SystemExit('the code of the folder ran')\n")
    with pytest.raises(ValueError, match=r"cannot open this folder"):
        ForeignModel(f"hf:{tmp_path}", HowToRun())


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_sees_what_comes_is_refused(tmp_path):
    shape = transformers.BertConfig(
        vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForMaskedLM(shape).save_pretrained(tmp_path / "bert")
    letters(tmp_path / "bert")
    with pytest.raises(ValueError, match="it is no causal model"):
        ForeignModel(f"hf:{tmp_path / 'bert'}", HowToRun())
