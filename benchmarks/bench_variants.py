"""Speed of variant scores (variants/s), per-base tracks and `score` (bp/s).

Variant scores are compared with two full forward passes per allele through transformers, with the same
weights, strands, phases and windows.

python -m benchmarks.bench_variants [--variants 4] [--context-bp 1530] [--model dna_gpt0.1b_m]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import dnagpt_fast as df
from dnagpt_fast.model.alleles import AlleleRule
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.haplotypes import Site, pair_of
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.variants.places import Variant, site_of

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
    parser.add_argument("--context-bp", type=int, help="bases before each variant (default: the rule's own)")
    parser.add_argument(
        "--model", default="dna_gpt6m_m", help="a packaged model, or dna_gpt0.1b_m with random weights"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.model == "dna_gpt0.1b_m":
        model, tokenizer = df.DNAGPT.from_name(options.model, VOCAB).eval(), df.KmerTokenizer()
    else:
        model, tokenizer = df.load_model(options.model)
    rule = AlleleRule.of(model, tokenizer, context_bp=options.context_bp)
    rng, needed = np.random.default_rng(0), rule.reach.needed_bp
    between = needed + 10
    sequence = "".join(rng.choice(list("ACGT"), 2 * needed + between * options.variants))
    places = [needed + between * i for i in range(options.variants)]
    variants = [("one", place, sequence[place], "CGTA"["ACGT".index(sequence[place])]) for place in places]
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder, "one.fa")
        fasta.write_text(f">one\n{sequence}\n")
        genome = df.Genome.open(fasta)

        def ours(some):
            return list(df.variant_scores(model, tokenizer, genome, some, context_bp=options.context_bp))

        ours(variants[:1])  # warm
        began = time.perf_counter()
        scores = ours(variants)
        seconds = time.perf_counter() - began

        peer = df.hub.DNAGPTForCausalLM.from_dnagpt(model).eval()
        site = site_of(genome, Variant(*variants[0]), rule, tokenizer.k)
        assert isinstance(site, Site)
        naive(peer, tokenizer, site, rule)  # warm
        began = time.perf_counter()
        theirs = naive(peer, tokenizer, site, rule)
        naive_seconds = time.perf_counter() - began
        assert abs(theirs - scores[0].llr) < 1e-3, (theirs, scores[0].llr)
        row = {
            "model": options.model,
            "cpu_isa": df.ops.report()["cpu_isa"],
            "threads": torch.get_num_threads(),
            "context_bp": rule.reach.context_bp,
            "after_bp": rule.reach.after_bp,
            "variants_per_s": options.variants / seconds,
            "naive_variants_per_s": 1 / naive_seconds,
            "times": naive_seconds / (seconds / options.variants),
        }
        length = 6 * 2000
        began = time.perf_counter()
        list(df.score(model, tokenizer, [sequence[:length]]))
        row["score_bp_per_s"] = min(length, len(sequence)) / (time.perf_counter() - began)
        began = time.perf_counter()
        BaseTracks(Inference(model), tokenizer).strand(genome.range("one"), 0, min(length, len(sequence)))
        row["track_bp_per_s"] = min(length, len(sequence)) / (time.perf_counter() - began)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
