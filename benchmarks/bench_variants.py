"""Speed of variant scores (variants/s), per-base tracks and `score` (bp/s).

Variant scores are compared with the naive way: for each allele, strand and phase one forward pass of the whole window
through transformers (DNAGPTForCausalLM with the same weights, one window at a time), with the logits of all rows. So an
SNV needs 2 x 2 x 6 = 24 passes. Both ways must give the same scores.

SNVs at random places of a random sequence, at these mean distances: 120 bp, as the variants of 300 people of the 1000
Genomes (24,990 in 3 Mb, Debian's shapeit4-example); 700 bp, as the variants of one person; and alone, too far from
each other to share anything. dna_gpt0.1b_m has random weights; its windows have up to 509 tokens.

python -m benchmarks.bench_variants [--model dna_gpt0.1b_m]
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import dnagpt_fast as df
from benchmarks.contest import circumstances, record
from dnagpt_fast.model.alleles import AlleleRule
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.haplotypes import Site, pair_of
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.variants.places import Variant, site_of

VOCAB = 19_564


@dataclass(frozen=True)
class Case:
    """context_bp: None for the rule's own; naive: number of variants that are scored the naive way; spacings: mean
    distance -> number of variants; track_bp: length for `track` and `score`."""

    context_bp: int | None
    naive: int
    spacings: dict[int, int]
    track_bp: int


CASES = {
    "dna_gpt6m_m": Case(None, 8, {120: 256, 700: 128, 10_000: 32}, 60_000),
    "dna_gpt0.1b_m": Case(1908, 2, {120: 40, 700: 12, 10_000: 3}, 6_000),
}


def naive_score(model, tokenizer, site, rule) -> float:
    """The same score from whole windows, one forward pass per allele, strand and phase."""
    ratios = []
    for side in (site, site.reverse_complement())[: rule.strands]:
        for phase in range(0, tokenizer.k, tokenizer.k // rule.phases):
            pair = pair_of(tokenizer, side, phase, rule.reach)
            context = pair.window[: pair.context]
            sums = []
            for branch in (pair.reference, pair.alternative):
                ids = torch.tensor([[*rule.prefix, *context, *branch]])
                logs = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
                sums.append(float(logs.gather(1, ids[0, 1:, None])[-len(branch) :].double().sum()))
            ratios.append(sums[1] - sums[0])
    return sum(ratios) / len(ratios)


def snvs(sequence: str, margin: int, spacing: int, count: int, rng: np.random.Generator) -> list[tuple]:
    """One for each part of `spacing` bases, at a random place in it; alone: in the middle of it."""
    places = [margin + spacing * i + int(rng.integers(spacing)) for i in range(count)]
    if spacing >= 10_000:
        places = [margin + spacing * i + spacing // 2 for i in range(count)]
    return [("one", place, sequence[place], "CGTA"["ACGT".index(sequence[place])]) for place in places]


def measure(name: str, case: Case) -> dict[str, object]:
    torch.manual_seed(0)
    if name == "dna_gpt0.1b_m":
        model, tokenizer = df.DNAGPT.from_name(name, VOCAB).eval(), df.KmerTokenizer()
    else:
        model, tokenizer = df.load_model(name)
    rule = AlleleRule.of(model, tokenizer, context_bp=case.context_bp)
    rng, margin = np.random.default_rng(0), rule.reach.needed_bp(tokenizer.k)
    longest = max(spacing * count for spacing, count in case.spacings.items())
    sequence = "".join(rng.choice(list("ACGT"), 2 * margin + max(longest, case.track_bp)))
    row: dict[str, object] = {
        "op": f"variants {name}",
        "model": name,
        "context_bp": rule.reach.context_bp,
        "stride_tokens": rule.reach.stride,
        "after_bp": rule.reach.after_bp,
    }
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder, "one.fa")
        fasta.write_text(f">one\n{sequence}\n")
        genome = df.Genome.open(fasta)

        def ours(some):
            return list(df.variant_scores(model, tokenizer, genome, some, context_bp=case.context_bp))

        dense = snvs(sequence, margin, *next(iter(case.spacings.items())), rng)
        some = dense[:: len(dense) // case.naive][: case.naive]
        wanted = ours(some)  # also warms up
        peer = df.hub.DNAGPTForCausalLM.from_dnagpt(model).eval()
        found = [site_of(genome, Variant(*variant), rule, tokenizer.k) for variant in some]
        sites = [site for site in found if isinstance(site, Site)]
        peer(input_ids=torch.tensor([pair_of(tokenizer, sites[0], 0, rule.reach).window]))  # warm
        began = time.perf_counter()
        theirs = [naive_score(peer, tokenizer, site, rule) for site in sites]
        naive_seconds = (time.perf_counter() - began) / len(sites)
        for one, other in zip(wanted, theirs, strict=True):
            assert abs(one.llr - other) < 1e-3, (one.llr, other)
        del peer
        row["naive variants/s"] = 1 / naive_seconds
        for spacing, count in case.spacings.items():
            variants = snvs(sequence, margin, spacing, count, rng)
            began = time.perf_counter()
            scores = ours(variants)
            seconds = (time.perf_counter() - began) / count
            assert len(scores) == count
            what = "alone" if spacing >= 10_000 else f"every {spacing} bp"
            row[f"variants/s, {what}"] = 1 / seconds
            row[f"times naive, {what}"] = naive_seconds / seconds
        began = time.perf_counter()
        list(df.score(model, tokenizer, [sequence[: case.track_bp]]))
        row["score bp/s"] = case.track_bp / (time.perf_counter() - began)
        began = time.perf_counter()
        BaseTracks(Inference(model), tokenizer).strand(genome.range("one"), 0, case.track_bp)
        row["track bp/s"] = case.track_bp / (time.perf_counter() - began)
        genome.close()
    return row


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(CASES), help="only this one")
    chosen = parser.parse_args().model
    for name, case in CASES.items():
        if chosen in (None, name):
            row = measure(name, case)
            print(json.dumps(row, indent=1), flush=True)
            record({**row, **circumstances()})


if __name__ == "__main__":
    main()
