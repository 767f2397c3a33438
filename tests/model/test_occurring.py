"""A model with one row for all tokens that are never a target: loss, gradients and training of the full softmax."""

import torch

from dnagpt_fast.batch import IGNORE_INDEX, ROW_NEXT_TOKEN, ROW_ORDER, PretrainBatch, Windows
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops.combined_loss.occurring import OccurringTokens, equalize_rest, occurring_tokens
from dnagpt_fast.training.optimizer import build_optimizer
from dnagpt_fast.vocab import Vocabulary, reserved_id

VOCABULARY = Vocabulary(2)
OTHERS = (
    reserved_id("="),
    reserved_id("M"),
    reserved_id("B"),
    VOCABULARY.kmer_id("N"),
    VOCABULARY.kmer_id("A"),
)


def model_with_equal_rows(bias: bool) -> tuple[DNAGPT, OccurringTokens]:
    torch.manual_seed(3)
    model = DNAGPT(len(VOCABULARY), 16, num_layers=1, num_heads=2, embedding_dim=16, bias=bias).double()
    occurring = occurring_tokens(VOCABULARY, OTHERS)
    equalize_rest(model.last_projection.weight, model.last_projection.bias if bias else None, occurring)
    return model, occurring


def batch_of(seed: int, occurring: OccurringTokens) -> PretrainBatch:
    """Six windows of eight tokens; the last target is an order label, one next token is ignored."""
    draw = torch.Generator().manual_seed(seed)
    ids = occurring.tokens[torch.randint(len(occurring.tokens), (6, 9), generator=draw)]
    targets, kinds = ids[:, 1:].clone(), torch.full((6, 8), ROW_NEXT_TOKEN, dtype=torch.uint8)
    targets[:, -1] = torch.tensor(OTHERS[-2:]).repeat(3)
    targets[0, 0] = IGNORE_INDEX
    kinds[:, -1] = ROW_ORDER
    none = torch.zeros(6, dtype=torch.int64)
    gc = torch.rand(6, generator=draw, dtype=torch.float64)
    return PretrainBatch(
        ids[:, :-1], targets, kinds, 3, gc, torch.ones(6, dtype=torch.bool), Windows(none, none, none, none)
    )


def test_the_tokens_are_the_plain_kmers_and_the_template():
    occurring = occurring_tokens(Vocabulary(6), (14, 18, 19, 34, 35))
    assert len(occurring.tokens) == 4096 + 5
    assert len(occurring.tokens) + len(occurring.rest) == 19_564
    assert not set(occurring.tokens.tolist()) & set(occurring.rest.tolist())


def test_loss_and_every_gradient_are_those_of_the_full_softmax():
    for bias in (True, False):
        model, occurring = model_with_equal_rows(bias)
        batch = batch_of(0, occurring)
        found = []
        for given in (None, occurring):
            model.zero_grad()
            loss = model.pretraining_loss(
                batch, order_weight=0.7, gc_weight=0.3, z_loss=1e-3, occurring=given
            )
            loss.total.backward()
            found.append(
                (
                    loss.total.detach(),
                    {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
                )
            )
        (full, gradients), (small, same) = found
        torch.testing.assert_close(small, full, rtol=1e-13, atol=0)
        assert gradients.keys() == same.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(same[name], gradient, rtol=1e-10, atol=1e-14)


def test_a_next_token_that_cannot_occur_is_left_out():
    model, occurring = model_with_equal_rows(True)
    batch = batch_of(1, occurring)
    batch.targets[2, 1] = VOCABULARY.kmer_id("NA")
    small = model.pretraining_loss(batch, occurring=occurring)
    batch.targets[2, 1] = IGNORE_INDEX
    torch.testing.assert_close(small.total, model.pretraining_loss(batch).total, rtol=1e-13, atol=0)


def test_two_hundred_steps_with_decay_and_clipping_end_at_the_weights_of_the_full_softmax():
    states = []
    for small in (False, True):
        model, occurring = model_with_equal_rows(True)
        model.number_embedding.requires_grad_(False)
        optimizer = build_optimizer(model, lr=3e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
        for step in range(200):
            optimizer.zero_grad()
            loss = model.pretraining_loss(
                batch_of(step % 10, occurring), occurring=occurring if small else None
            )
            loss.total.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        assert norm > 0.5  # gradients were clipped
        states.append(model.state_dict())
    for name, full in states[0].items():
        torch.testing.assert_close(states[1][name], full, rtol=1e-7, atol=1e-10)
    rest = states[1]["mlm_head.3.weight"][occurring.rest]
    assert torch.equal(rest, rest[:1].expand_as(rest))
