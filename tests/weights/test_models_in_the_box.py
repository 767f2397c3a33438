"""The packaged models: small, complete, and better on a chromosome outside their training data than a Markov chain
fitted on it."""

import pytest
import torch

from dnagpt_fast.evaluation.markov import MarkovChain, base_codes
from dnagpt_fast.genome import Genome
from dnagpt_fast.model.generation import generate_sequences
from dnagpt_fast.model.score import score
from dnagpt_fast.pretrain.demo import DEMO_CONFIG
from dnagpt_fast.vocab import N_RESERVED
from dnagpt_fast.weights.forms import load_pretrained
from dnagpt_fast.weights.packaged import packaged_models

MODELS = packaged_models()
MOST_BYTES = 12_000_000


def test_there_is_one():
    assert MODELS


@pytest.mark.parametrize("name", MODELS)
def test_it_is_small_and_describes_itself(name):
    facts = MODELS[name].facts
    assert MODELS[name].file.stat().st_size <= MOST_BYTES
    model, tokenizer = load_pretrained(name)
    assert model.config.to_dict() == facts["model"]
    assert sum(p.numel() for p in model.parameters()) == facts["parameters"]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert len(tokenizer.vocabulary) == model.vocab_size


@pytest.mark.parametrize("name", MODELS)
def test_it_predicts_human_sequence_outside_its_training_data(name):
    """Windows of chr22, of which no base was in training, compared with the order-5 chain fitted on that megabase."""
    model, tokenizer = load_pretrained(name)
    with Genome.open(DEMO_CONFIG.with_name("hg19_chr22_20-21Mb.2bit")) as genome:
        contig, bp = genome.names[0], 6 * (model.max_len - 5)
        windows = {
            start: genome.sequence(contig, start, start + bp).upper() for start in range(0, 990_000, 60_000)
        }
        known = {start: text for start, text in windows.items() if "N" not in text}
        chain = MarkovChain(5).fit([base_codes(genome.arrays, 0, 0, 1_000_000)])
        codes = [base_codes(genome.arrays, 0, start, start + bp) for start in known]
    assert len(known) >= 12
    scores = list(score(model, tokenizer, known.values(), prefix="<R>"))
    nats_per_bp = -sum(one.log_likelihood for one in scores) / sum(one.scored_bp for one in scores)
    of_chain = -sum(chain.log_probs(one).sum() for one in codes) / (len(codes) * bp)
    assert nats_per_bp < of_chain - 0.03


@pytest.mark.parametrize("name", MODELS)
def test_it_generates_bases_under_every_species_token(name):
    model, tokenizer = load_pretrained(name)
    species = {one["species"] for one in MODELS[name].facts["genomes"]}
    assert {"human", "yeast"} <= species
    for made in generate_sequences(model, tokenizer, ["<R>", "<U>"], max_new_tokens=8, bases_only=True):
        assert len(made.new_ids) == 8
        assert min(made.new_ids) >= N_RESERVED
