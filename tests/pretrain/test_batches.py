"""Batches from windows, against plain string handling."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER, Windows
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.base_weights import BaseWeights
from dnagpt_fast.genome.places import Place, disjoint, soft_masked
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.vocab import UNKNOWN_ID, Vocabulary, reserved_id
from tests.genome.synthetic import packed_genome, random_letters

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def windows(genome: list[int], contig: list[int], start_bp: list[int], orientation: list[int]) -> Windows:
    return Windows(*(torch.tensor(column) for column in (genome, contig, start_bp, orientation)))


@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.integers(1, 9))
@settings(deadline=None, max_examples=50)
def test_a_batch_is_the_template_around_the_window(seed, k, dynamic, n_kmers):
    rng = np.random.default_rng(seed)
    letters = [[random_letters(rng, int(rng.integers(54, 90)), 3, 8) for _ in range(2)] for _ in range(3)]
    vocabulary = Vocabulary(k, dynamic)
    template = Template.build(vocabulary)
    species = [reserved_id(name) for name in "RSV"]
    make = BatchMaker([packed_genome(contigs) for contigs in letters], species, n_kmers, vocabulary, template)
    length = make.length_bp
    assert length == n_kmers * k
    places = [
        (rng.integers(3), rng.integers(2), rng.integers(54 - length + 1), rng.integers(4)) for _ in range(7)
    ]
    batch = make(windows(*(list(map(int, column)) for column in zip(*places, strict=True))))

    assert batch.token_ids.shape == (7, n_kmers + 5)
    for row, (g, c, start, orientation) in enumerate(places):
        text = letters[g][c][start : start + length]
        gc, known = sum(base in "GC" for base in text), sum(base != "N" for base in text)
        text = text.translate(COMPLEMENT) if orientation & 2 else text
        text = text[::-1] if orientation & 1 else text
        kmers = [vocabulary.kmer_id(text[i : i + k]) for i in range(0, length, k)]
        prompts = [reserved_id(name) for name in "=M=B"]
        assert batch.token_ids[row].tolist() == [species[g], *kmers, *prompts]
        # Not reversed: the forward strand, or its reverse complement, which is the reverse strand.
        names = "NA" if dynamic else "+-"
        name = names[0] if orientation in (0, 3) else names[1]
        answer = vocabulary.kmer_id(name) if dynamic else reserved_id(name)
        assert batch.targets[row].tolist() == [*batch.token_ids[row, 1:].tolist(), answer]
        assert batch.gc_mask[row] == (known > 0)
        if known:
            assert batch.gc_target[row] == torch.tensor(gc / known, dtype=torch.float32)
    assert batch.token_ids[0, batch.gc_position] == reserved_id("M")
    assert (batch.row_kind[:, :-1] == ROW_NEXT_TOKEN).all()
    assert (batch.row_kind[:, -1] == ROW_ORDER).all()


def test_a_window_of_n_has_no_gc():
    vocabulary = Vocabulary(2)
    make = BatchMaker([packed_genome(["NNNNACGT"])], [21], 2, vocabulary, Template.build(vocabulary))
    batch = make(windows([0, 0], [0, 0], [0, 4], [0, 0]))
    assert batch.gc_mask.tolist() == [False, True]
    assert batch.gc_target.tolist() == [0.0, 0.5]


def test_sampled_windows_become_batches():
    rng = np.random.default_rng(0)
    genomes = [packed_genome([random_letters(rng, 4000, 4, 200)]) for _ in range(2)]
    vocabulary = Vocabulary(6)
    make = BatchMaker(genomes, [21, 27], 30, vocabulary, Template.build(vocabulary))
    sampler = WindowSampler(genomes, make.length_bp, seed=2)
    batch = make(sampler.sample(100, 50))
    assert batch.token_ids.dtype == torch.int64
    assert set(batch.token_ids[:, 0].tolist()) == {21, 27}
    assert int(batch.token_ids.max()) < len(vocabulary)
    assert set(batch.targets[:, -1].tolist()) == {vocabulary.kmer_id("N"), vocabulary.kmer_id("A")}


def test_other_prompts_and_answers():
    vocabulary = Vocabulary(6)
    template = Template.build(
        vocabulary, gc_prompt=["M"], order_prompt=["B", "|", "B"], order_answers=["X", "GGG"]
    )
    make = BatchMaker([packed_genome(["ACGTAC" * 4])], [21], 2, vocabulary, template)
    batch = make(windows([0], [0], [0], [1]))
    assert batch.token_ids[0, 3:].tolist() == [reserved_id(name) for name in "MB|B"]
    assert batch.gc_position == 3
    assert batch.targets[0, -1] == vocabulary.kmer_id("GGG")


@pytest.mark.parametrize("dynamic", [True, False])
def test_the_answers_are_two_and_not_the_unknown_token(dynamic):
    template = Template.build(Vocabulary(6, dynamic))
    assert template.not_reversed != template.reversed
    assert UNKNOWN_ID not in (template.not_reversed, template.reversed)


def test_impossible_templates_are_refused():
    with pytest.raises(ValueError, match="two different tokens"):
        Template.build(Vocabulary(6), order_answers=["A", "A"])
    with pytest.raises(ValueError, match="fixed k=6"):
        Template.build(Vocabulary(6, dynamic=False), order_answers=["N", "A"])
    with pytest.raises(KeyError, match="is no reserved token"):
        Template.build(Vocabulary(6), gc_prompt=["GC"])
    with pytest.raises(ValueError, match="at least one token"):
        Template.build(Vocabulary(6), gc_prompt=[])


def test_windows_that_leave_their_contig_are_refused():
    vocabulary = Vocabulary(6)
    make = BatchMaker([packed_genome(["ACGTAC"])], [21], 1, vocabulary, Template.build(vocabulary))
    with pytest.raises(IndexError):
        make(windows([0], [0], [1], [0]))


def test_soft_masked_next_tokens_weigh_less(tmp_path):
    """Row j predicts k-mer j in the order in which the window is read; prompts and the order answer weigh 1."""
    path = tmp_path / "g.fa"
    path.write_text(">a\n" + "ACGTAC" + "acgTAC" + "acgtac" + "ACGTAC" + "\n")
    genome = Genome.open(path)
    vocabulary = Vocabulary(6)
    make = BatchMaker([genome.arrays], [21], 3, vocabulary, Template.build(vocabulary))
    zero = torch.zeros(2, dtype=torch.int64)
    windows = Windows(zero, zero, torch.tensor([0, 6]), torch.tensor([0, 3]))
    assert make(windows).row_weight is None
    mask = BaseWeights([genome.arrays], [soft_masked(genome, 0.2)])
    weight = make.weighing(mask)(windows).row_weight
    assert weight.shape == (2, make.n_tokens)
    assert torch.allclose(weight[0, :3], torch.tensor([1.0, 0.6, 0.2]))
    assert torch.allclose(weight[1, :3], torch.tensor([1.0, 0.2, 0.6]))
    assert (weight[:, 3:] == 1).all()
    placed = BaseWeights([genome.arrays], [disjoint([Place(0, 6, 12, 10.0, "here")])])
    both = make.weighing(mask, placed)(windows).row_weight
    assert torch.allclose(both[0, :3], torch.tensor([1.0, 6.0, 0.2]))
