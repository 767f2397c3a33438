"""Generation: 10 samples x 256 tokens of a 0.1B model in fp32, greedy, beside the official code.

python -m pytest benchmarks/bench_generate.py            (DNAGPT_OFFICIAL=<clone>: the original in the same run)

The prompt has 3 tokens, so 253 are generated for each sample. The official code generates one sample at a
time without a cache, so the time of one sample is multiplied by ten. Its tokens are compared with ours before
any time is printed. DNAGPT_BENCH_TOKENS shortens the sequences.
"""

import os
import sys
import time

import pytest
import torch

from dnagpt_fast import DNAGPT

OFFICIAL = os.environ.get("DNAGPT_OFFICIAL")
TOKENS = int(os.environ.get("DNAGPT_BENCH_TOKENS", "256"))
SAMPLES = 10
PROMPT = [21, 8495, 7978]
NEW = TOKENS - len(PROMPT)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DNAGPT.from_name("dna_gpt0.1b_m", 19_564).eval()


@pytest.fixture(scope="module")
def official(model):
    """(tokens, seconds) of one greedy sample of the original with the same weights."""
    if not OFFICIAL:
        return None
    sys.path.insert(0, OFFICIAL)
    try:
        from dna_gpt.model import DNAGPT as Original
    finally:
        sys.path.remove(OFFICIAL)
    original = Original.from_name("dna_gpt0.1b_m", 19_564).eval()
    original.load_state_dict(model.state_dict())
    prompt = torch.tensor([PROMPT])
    original.generate(prompt, 2)
    began = time.perf_counter()
    tokens = original.generate(prompt, NEW)
    return tokens, time.perf_counter() - began


@pytest.mark.parametrize("rule", ["greedy", "top_p"])
def test_ten_samples(benchmark, model, official, rule):
    prompts = torch.tensor([PROMPT] * SAMPLES)
    settings = {} if rule == "greedy" else {"do_sample": True, "top_p": 0.95}
    made = model.generate(prompts, NEW, **settings)
    assert made.shape == (SAMPLES, TOKENS)
    if official is not None and rule == "greedy":
        assert all(row.equal(official[0][0]) for row in made), "not the original's greedy tokens"
    benchmark.pedantic(model.generate, (prompts, NEW), settings, rounds=2, iterations=1)
    seconds = benchmark.stats.stats.min
    benchmark.extra_info["tokens_per_s"] = round(SAMPLES * NEW / seconds, 1)
    if official is not None:
        benchmark.extra_info["official_s_10_samples"] = round(SAMPLES * official[1], 1)
        benchmark.extra_info["times_as_fast"] = round(SAMPLES * official[1] / seconds, 1)
    print(f"\n{rule}: {seconds:.2f} s, {benchmark.extra_info}")
