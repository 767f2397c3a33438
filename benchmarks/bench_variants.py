"""Speed of variant scores (variants/s), per-base tracks and `score` (bp/s).

Variant scores are compared with two full forward passes per allele through transformers, with the same
weights, strands, phases and windows.

python -m benchmarks.bench_variants [--variants 4] [--context-bp 1530] [--small]
"""

import argparse
import json
import time

import numpy as np
import torch

from dnagpt_fast import DNAGPT, KmerTokenizer
from dnagpt_fast.model.alleles import AlleleRule, allele_scores
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.haplotypes import Site, pair_of
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.score import score

VOCAB = 19_564


def naive(model, tokenizer, site, rule) -> float:
    """The same score from whole windows, one forward pass per allele, strand and phase."""
    ratios = []
    for side in (site, site.reverse_complement())[: rule.strands]:
        for phase in range(0, tokenizer.k, tokenizer.k // rule.phases):
            pair = pair_of(tokenizer, side, phase, rule.reach)
            sums = []
            for branch in (pair.reference, pair.alternative):
                ids = torch.tensor([[*rule.prefix, *pair.context, *branch]])
                logs = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
                sums.append(float(logs.gather(1, ids[0, 1:, None])[-len(branch) :].double().sum()))
            ratios.append(sums[1] - sums[0])
    return sum(ratios) / len(ratios)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=4)
    parser.add_argument("--context-bp", type=int, default=1530)
    parser.add_argument("--small", action="store_true", help="2 layers of width 64 instead of the 0.1B model")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = (
        DNAGPT(VOCAB, 512, 2, 2, 64, False) if options.small else DNAGPT.from_name("dna_gpt0.1b_m", VOCAB)
    ).eval()
    tokenizer, rng = KmerTokenizer(), np.random.default_rng(0)
    rule = AlleleRule.of(model, tokenizer, context_bp=options.context_bp)

    def text(length: int) -> str:
        return "".join(rng.choice(list("ACGT"), length))

    sites = [
        Site(text(rule.reach.needed_bp), "A", "G", text(rule.reach.needed_bp))
        for _ in range(options.variants)
    ]
    inference = Inference(model)
    allele_scores(inference, tokenizer, sites[:1], rule)  # warm
    began = time.perf_counter()
    ours = allele_scores(inference, tokenizer, sites, rule)
    seconds = time.perf_counter() - began

    from dnagpt_fast.hub import DNAGPTForCausalLM

    peer = DNAGPTForCausalLM.from_dnagpt(model).eval()
    began = time.perf_counter()
    theirs = naive(peer, tokenizer, sites[0], rule)
    naive_seconds = time.perf_counter() - began
    assert abs(theirs - ours[0].llr) < 1e-3, (theirs, ours[0].llr)
    print(
        json.dumps(
            {
                "what": "variants", "context_bp": rule.reach.context_bp, "after_bp": rule.reach.after_bp,
                "small": options.small, "threads": torch.get_num_threads(),
                "variants_per_s": options.variants / seconds, "naive_variants_per_s": 1 / naive_seconds,
                "times": naive_seconds / (seconds / options.variants),
            }
        )
    )  # fmt: skip
    length = 6 * 2000
    sequence = text(length)
    began = time.perf_counter()
    list(score(model, tokenizer, [sequence]))
    print(json.dumps({"what": "score", "bp_per_s": length / (time.perf_counter() - began)}))
    from dnagpt_fast.packed import PackedRange
    from tests.genome.synthetic import packed_genome

    contig = PackedRange(packed_genome([sequence]), 0, 0, length)
    began = time.perf_counter()
    BaseTracks(inference, tokenizer).strand(contig, 0, length)
    print(json.dumps({"what": "track", "bp_per_s": length / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
