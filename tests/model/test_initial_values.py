"""Composed initial values: k-mers that share bases start similar; the variance is that of the official draw."""

import pytest
import torch

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.initial_values import compose_input_rows, model_shape, random_model
from dnagpt_fast.training.settings import ConfigError, ModelSettings
from dnagpt_fast.vocab import N_RESERVED, Vocabulary

SMALL = {"max_len": 16, "num_layers": 1, "num_heads": 2, "embedding_dim": 32}


def rows_of(vocabulary: Vocabulary, width: int = 256) -> torch.Tensor:
    rows = torch.zeros(len(vocabulary), width)
    compose_input_rows(rows, vocabulary, torch.Generator().manual_seed(0))
    return rows


@pytest.mark.parametrize(
    "vocabulary", [Vocabulary(6), Vocabulary(6, dynamic=False), Vocabulary(3), Vocabulary(1)]
)
def test_a_component_has_variance_one_and_reserved_rows_are_left(vocabulary):
    rows = rows_of(vocabulary)
    assert not rows[:N_RESERVED].any()
    lengths = range(1 if vocabulary.dynamic else vocabulary.k, vocabulary.k + 1)
    # There are only four rows of one-letter k-mers: their variance is known to a few per cent.
    for kmer in ("ACGTAC"[:k] for k in lengths):
        assert rows[vocabulary.kmer_id(kmer)].var() == pytest.approx(1.01, rel=0.35)
    plain = (
        torch.tensor([vocabulary.kmer_id(a + b) for a in "ACGT" for b in "ACGT"]) if 2 in lengths else None
    )
    if plain is not None:
        assert rows[plain].var() == pytest.approx(1.01, rel=0.1)


def test_rows_with_more_common_bases_are_more_similar():
    vocabulary = Vocabulary(6)
    rows = rows_of(vocabulary, 512)

    def alike(one: str, other: str) -> float:
        pair = rows[[vocabulary.kmer_id(one), vocabulary.kmer_id(other)]]
        return float(torch.corrcoef(pair)[0, 1])

    # The last base changed: 3 of the 15 parts differ (one of each length), so 12 / 15 are shared, divided by 1.01.
    assert alike("ACGTAC", "ACGTAG") == pytest.approx(0.8 / 1.01, abs=0.15)
    # The first three bases changed: the parts within the last three are shared, 3 + 2 + 1 of 15.
    assert alike("ACGTAC", "CATTAC") == pytest.approx(0.4 / 1.01, abs=0.15)
    assert alike("ACGTAC", "CATGCA") == pytest.approx(0.0, abs=0.2)
    # Bases shifted by one place have other parts: the meaning of a base depends on its place.
    assert alike("ACGTAC", "CGTACA") == pytest.approx(0.0, abs=0.2)


def test_an_n_adds_nothing():
    vocabulary = Vocabulary(6)
    rows = rows_of(vocabulary)
    assert rows[vocabulary.kmer_id("NNNNNN")].var() == pytest.approx(0.01, rel=0.3)
    # Parts without the N at the first place: 5 + 4 + 3 of 15.
    assert rows[vocabulary.kmer_id("NCGTAC")].var() == pytest.approx(12 / 15 + 0.01, rel=0.3)


def test_official_values_are_those_of_the_seed_and_composed_ones_change_only_the_input_rows():
    vocabulary = Vocabulary(3)
    official = random_model(ModelSettings(initial="official", **SMALL), vocabulary, seed=5)
    torch.manual_seed(5)
    plain = DNAGPT.from_config(model_shape(ModelSettings(**SMALL), vocabulary)).state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in official.state_dict().items())
    composed = random_model(ModelSettings(**SMALL), vocabulary, seed=5).state_dict()
    differing = {name for name, value in composed.items() if not torch.equal(value, plain[name])}
    assert differing == {"transformer.wte.weight"}
    again = random_model(ModelSettings(**SMALL), vocabulary, seed=5).state_dict()
    assert torch.equal(again["transformer.wte.weight"], composed["transformer.wte.weight"])


def test_an_unknown_kind_of_initial_values_is_named():
    with pytest.raises(ConfigError, match=r"model\.initial = 'zero': wanted composed or official"):
        random_model(ModelSettings(initial="zero", **SMALL), Vocabulary(2), seed=0)


@pytest.mark.parametrize(
    "given", [{"num_layers": 10**7, "embedding_dim": 8, "num_heads": 1}, {"embedding_dim": 12 * 2**20}]
)
def test_a_model_that_no_memory_holds_is_refused_before_it_is_built(given):
    with pytest.raises(
        ConfigError, match=r"model: .* parameters, which take .* GiB: wanted at most 10,000 layers"
    ):
        random_model(ModelSettings(**given), Vocabulary(3), 0)
