"""The validation report against sums computed by hand, and on models with known answers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dnagpt_fast.evaluation.chains import Chains
from dnagpt_fast.evaluation.markov import MarkovChain
from dnagpt_fast.genome.intervals import Intervals
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops.combined_loss.occurring import equalize_rest, occurring_tokens
from dnagpt_fast.pretrain import validation
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.pretrain.validation import Validator, answers_of, held_out_windows, r2
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.vocab import Vocabulary
from tests.genome.synthetic import packed_genome, random_letters

VOCABULARY = Vocabulary(2)
N_KMERS = 10


def ranges(*rows: tuple[int, int, int]) -> Intervals:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Intervals(columns[:, 0], columns[:, 1], columns[:, 2])


@pytest.fixture
def genome():
    letters = random_letters(np.random.default_rng(0), 1000)
    return packed_genome([letters[:655] + "N" + letters[656:]])


@pytest.fixture
def maker(genome):
    return BatchMaker([genome], [21], N_KMERS, VOCABULARY, Template.build(VOCABULARY))


@pytest.fixture
def windows(genome):
    return held_out_windows([genome], [ranges((0, 600, 1000))], N_KMERS * 2, 1, 1000)


@pytest.fixture
def model():
    return DNAGPT(len(VOCABULARY), max_len=16, num_layers=1, num_heads=2, embedding_dim=8)


def unfitted() -> Chains:
    return Chains.of(MarkovChain(2), [])


def evaluate(validator: Validator, model: DNAGPT, processes: Processes | None = None):
    template = validator.maker.template
    return validator(lambda batch: answers_of(model, batch, template), torch.device("cpu"), processes)


def test_nats_are_those_of_the_logits_without_kmers_with_n(maker, windows, model):
    report = evaluate(Validator(maker, windows, unfitted(), 3), model)
    batch = maker(windows)
    losses = F.cross_entropy(
        model(batch.token_ids)[:, :N_KMERS].flatten(0, 1),
        batch.targets[:, :N_KMERS].flatten(),
        reduction="none",
    )
    known = torch.ones(20, N_KMERS, dtype=torch.bool)
    known[2, 7] = False  # base 655 is the second of the k-mer at 654
    assert report.windows == 20
    assert report.base_pairs == 2 * (20 * N_KMERS - 1)
    assert report.nats_per_bp == pytest.approx(
        float(losses[known.flatten()].detach().sum()) / report.base_pairs, rel=1e-5
    )
    # The unfitted chain is the uniform model.
    assert report.markov_nats_per_bp == pytest.approx(math.log(4))
    assert report.uniform_nats_per_bp == pytest.approx(math.log(4))


def test_the_tokens_that_occur_give_the_same_report(maker, windows, model):
    template = maker.template
    prompts = (*template.gc_prompt, *template.order_prompt, template.not_reversed, template.reversed)
    tokens, last = occurring_tokens(VOCABULARY, prompts), model.last_projection
    equalize_rest(last.weight, last.bias, tokens)
    validator = Validator(maker, windows, unfitted(), 3)
    ours = validator(lambda batch: answers_of(model, batch, template, tokens), torch.device("cpu"))
    wanted = evaluate(validator, model)
    assert ours.nats_per_bp == pytest.approx(wanted.nats_per_bp, rel=1e-6)
    assert (ours.gc_r2, ours.order_accuracy) == (wanted.gc_r2, wanted.order_accuracy)


def test_processes_share_the_windows_and_count_none_twice(maker, windows, model, monkeypatch):
    """Twenty windows over three processes: one window is evaluated twice to make the parts equal, and counts
    once."""
    monkeypatch.setattr(validation, "BLOCK_BP", 100)
    validator = Validator(maker, windows, unfitted(), 3)
    whole = evaluate(validator, model)
    sums = []

    class Shares(Processes):
        def sum(self, values):
            sums.append(values.clone())
            return values if len(sums) < 3 else values.copy_(sums[0] + sums[1] + sums[2])

    reports = [evaluate(validator, model, Shares(rank, 3)) for rank in range(3)]
    for name, value in whole.to_dict().items():
        assert reports[2].to_dict()[name] == pytest.approx(value, rel=1e-6), name


def test_a_model_that_always_says_reversed_is_right_half_the_time(maker, windows, model):
    template = maker.template
    with torch.no_grad():
        model.mlm_head[3].weight[template.reversed] = 0
        model.mlm_head[3].weight[template.not_reversed] = 0
    # Equal logits mean "not reversed": correct for the windows in orientation 0, wrong for the reversed ones.
    assert evaluate(Validator(maker, windows, unfitted(), 8), model).order_accuracy == 0.5


def test_perfect_gc_has_r2_one(maker, windows, model, monkeypatch):
    batch = maker(windows)
    queue = list(batch.gc_target.split(8)) * 2  # once for each orientation
    monkeypatch.setattr(model.num_regression, "forward", lambda _: queue.pop(0)[:, None])
    assert evaluate(Validator(maker, windows, unfitted(), 8), model).gc_r2 == pytest.approx(1.0)


def test_r2_by_its_equation():
    target = np.array([0.1, 0.5, 0.6])

    def of(said: np.ndarray) -> float | None:
        return r2(3, target.sum(), (target**2).sum(), ((said - target) ** 2).sum())

    assert of(target) == pytest.approx(1)
    assert of(np.full(3, target.mean())) == pytest.approx(0)
    assert r2(2, 0.2, 0.02, 0.5) is None
    assert r2(0, 0.0, 0.0, 0.0) is None


def test_windows_are_adjacent_and_chosen_evenly(genome, monkeypatch):
    held_out = [ranges((0, 600, 1000))]
    everything = held_out_windows([genome], held_out, 20, 20, 1000)
    assert everything.start_bp.tolist() == list(range(600, 1000, 20))
    assert set(everything.orientation.tolist()) == {0}
    some = held_out_windows([genome], held_out, 20, 20, 4)
    assert some.start_bp.tolist() == [600, 720, 860, 980]
    # counted and made a few ranges at a time
    two = [ranges((0, 600, 700), (0, 700, 1000)), ranges((0, 0, 300), (0, 300, 360))]
    at_once = held_out_windows([genome] * 2, two, 20, 20, 11)
    monkeypatch.setattr(validation, "WINDOWS_AT_ONCE", 3)
    in_pieces = held_out_windows([genome] * 2, two, 20, 20, 11)
    for name in ("genome", "contig", "start_bp"):
        assert torch.equal(getattr(at_once, name), getattr(in_pieces, name))
    assert in_pieces.genome.tolist() == [0] * 6 + [1] * 5
    without_n = held_out_windows([genome], held_out, 20, 0, 1000)
    assert 640 not in without_n.start_bp.tolist()
    with pytest.raises(ValueError, match="no held-out range has room for a window of 401 bp"):
        held_out_windows([genome], held_out, 401, 20, 4)


def test_the_interval_is_that_of_resampled_blocks(maker, windows, model, monkeypatch):
    """Windows of 20 bp in blocks of 100: four blocks. The draws are made here by hand, with the same generator."""
    monkeypatch.setattr(validation, "BLOCK_BP", 100)
    validator = Validator(maker, windows, unfitted(), 3)
    report = evaluate(validator, model)
    answers = answers_of(model, maker(windows), maker.template)
    nats = -torch.where(validator.known, answers.log_probs.double(), 0.0).sum(dim=1).detach().numpy()
    bases = validator.known.sum(dim=1).numpy() * 2
    difference = nats - bases * math.log(4)  # the unfitted chain is the uniform model
    assert report.against_best == pytest.approx(difference.sum() / bases.sum(), rel=1e-6)
    blocks = [slice(i, i + 5) for i in range(0, 20, 5)]
    drawn = np.random.default_rng(0).integers(4, size=(validation.RESAMPLES, 4))
    means = [
        sum(difference[blocks[i]].sum() for i in row) / sum(bases[blocks[i]].sum() for i in row)
        for row in drawn
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    assert report.against_best_low == pytest.approx(low, rel=1e-6)
    assert report.against_best_high == pytest.approx(high, rel=1e-6)
    assert low < report.against_best < high


def test_one_block_has_no_interval(maker, windows, model):
    report = evaluate(Validator(maker, windows, unfitted(), 3), model)
    assert (report.against_best_low, report.against_best_high) == (None, None)
    assert "one block" in dict(report.rows())["  against the best chain"]


def test_the_report_prints_its_distances(maker, windows, model):
    report = evaluate(Validator(maker, windows, unfitted(), 8), model)
    rows = dict(report.rows())
    assert rows["DNAGPT"] == f"{report.nats_per_bp:.4f} nats/bp"
    assert rows["  against uniform"] == f"{report.nats_per_bp - math.log(4):+.4f}"
    assert report.to_dict()["windows"] == 20
