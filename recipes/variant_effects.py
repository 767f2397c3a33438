"""What the likelihood of a single-base variant says, beside simple baselines: rare against common variants, effects
measured by MPRA, and splice sites.

    python recipes/variant_effects.py --mpra elements.tsv.gz

Sequence: human chr20 (hg19) of Debian's vt-examples. Variants: 300 people of the 1000 Genomes, chr20:1-4 Mb, Debian's
shapeit4-example. Introns: the refGene table of PyPI's pyrose2. Effects of all substitutions in 21 promoters and
enhancers (Kircher et al. 2019): the file data/elements.tsv.gz of github.com/kircherlab/MPRA_SaturationMutagenesis at
commit c5cadb4 (GPL-3); without --mpra this part is left out.

The scores of each part are kept in --out; the same command continues there.
"""

import argparse
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fetch import debian, wheel
from stage import HERE, Clock, finish

from dnagpt_fast import Genome, load_model, variant_scores
from dnagpt_fast.evaluation.chains import Chains, fit_chains
from dnagpt_fast.evaluation.row_counts import RankedScores
from dnagpt_fast.evaluation.scores import Score, bootstrap, resampled
from dnagpt_fast.evaluation.variant_baselines import (
    Variant,
    by_class,
    chain_scores,
    changes,
    class_means,
    is_cpg_transition,
    without_change,
)
from dnagpt_fast.extras import need
from dnagpt_fast.finetune.data.annotation import read_annotation
from dnagpt_fast.genome.intervals import Intervals
from dnagpt_fast.suites.mpra import read_elements
from dnagpt_fast.suites.splice_pairs import MOTIFS, Intron
from dnagpt_fast.suites.splice_pairs import knock_outs as splice_pairs
from dnagpt_fast.variants.vcf import VcfFile

REPORTED = (60_000_000, 63_000_000)
"""One of the ranges that the packaged model's training left out (docs/dna_gpt6m_m.md); reported apart too."""
LLR, MODEL, CHAIN, CPG, TABLE = "llr", "DNAGPT", "Markov chain", "CpG transition", "trinucleotide table"


@dataclass(frozen=True)
class Task:
    """truth: a label (1 is the class to find) or a measured effect; cluster: the rows of one cluster are drawn
    together."""

    variants: list[Variant]
    truth: np.ndarray
    cluster: np.ndarray


def held_out_ranges() -> list[tuple[int, int]]:
    settings = tomllib.loads((HERE / "packaged_model.toml").read_text())
    ranges = settings["data"]["genomes"][0]["held_out"]
    return [tuple(map(int, text.split(":")[1].split("-"))) for text in ranges]  # type: ignore[misc]


def some_of(rows: Sequence, number: int, rng: np.random.Generator) -> list:
    """In their order."""
    if not number or number >= len(rows):
        return list(rows)
    return [rows[i] for i in np.sort(rng.choice(len(rows), number, replace=False))]


# Scores


def model_scores(name: str, genome: Genome, variants: list[Variant], model: tuple, out: Path) -> np.ndarray:
    """float64 (n,): log-ratios of the model, NaN where a variant has none; kept in a file."""
    digest = hashlib.sha256(json.dumps(variants).encode()).hexdigest()
    path = out / f"variant_effects_{name}.npz"
    if path.exists():
        kept = np.load(path)
        if str(kept["variants"]) == digest:
            return kept[LLR]
    scores = variant_scores(*model, genome, variants, max_tokens=16_384)
    found = [np.nan if score.llr is None else score.llr for score in scores]
    np.savez(path, llr=found, variants=digest)
    return np.array(found)


# Measures


def spearman(truth: np.ndarray, score: np.ndarray) -> float:
    if np.ptp(score) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(need("scipy.stats").spearmanr(truth, score)[0])


def ranked(
    task: Task,
    scores: Mapping[str, np.ndarray],
    resamples: int,
    keep: Callable[[Variant], bool] | None = None,
) -> dict[str, dict[str, Score]]:
    """auroc and auprc of each method, and the difference of the first method's auroc from the others, in the same
    resamples."""
    rows = np.isfinite(np.stack(list(scores.values()))).all(0)
    if keep is not None:
        rows &= np.array([keep(variant) for variant in task.variants])
    truth, cluster = task.truth[rows].astype(int), task.cluster[rows]
    of = {name: RankedScores(values[rows], truth == 1) for name, values in scores.items()}
    first = next(iter(scores))

    def measures(drawn: np.ndarray) -> dict[str, float]:
        count = np.bincount(drawn, minlength=len(truth)).astype(np.float64)
        areas = {name: one.areas(count) for name, one in of.items()}
        found = {}
        for name, (auroc, auprc) in areas.items():
            found |= {f"{name};AUROC": auroc, f"{name};AUPRC": auprc}
            if name != first:
                found[f"{name};{MODEL} ahead by (AUROC)"] = areas[first][0] - auroc
        return found

    found: dict[str, dict[str, Score]] = {name: {} for name in scores}
    drawn = bootstrap(measures, len(truth), resampled(len(truth), resamples, 0, cluster, strata=truth))
    for key, score in drawn.items():
        name, measure = key.split(";")
        found[name][measure] = score
    return found


# Rare against common variants


def rare_and_common(vcf: Path, settings: Mapping, rng: np.random.Generator) -> tuple[Task, Task]:
    """The variants of the tested blocks (1: rare), and those of the other blocks, for fitting. Single bases only."""
    of: dict[tuple[bool, int], list[tuple[Variant, int]]] = {}
    for record in VcfFile(vcf).records():
        if len(record.reference) != 1 or [len(text) for text in record.alternatives] != [1]:
            continue
        info = dict(part.split("=", 1) for part in record.text.split("\t")[7].split(";") if "=" in part)
        count, total = int(info["AC"]), int(info["AN"])
        if 1 <= count <= settings["rare_most_count"]:
            label = 1
        elif settings["common_frequency"] <= count / total <= 1 - settings["common_frequency"]:
            label = 0
        else:
            continue
        block = record.start_bp // settings["block_bp"]
        variant = (record.contig, record.start_bp, record.reference, record.alternatives[0])
        of.setdefault((block % settings["fit_every"] == 0, label), []).append((variant, block))

    def task(fitting: bool, each: int) -> Task:
        rows = [(*row, label) for label in (0, 1) for row in some_of(of[fitting, label], each, rng)]
        rows.sort(key=lambda row: row[0][1])
        variants, blocks, labels = zip(*rows, strict=True)
        return Task(list(variants), np.array(labels), np.array(blocks))

    return task(False, settings["each"]), task(True, 0)


def judge_rarity(
    genome: Genome, chains: Chains, model: tuple, vcf: Path, settings: Mapping, resamples: int, out: Path
) -> str:
    tested, fitting = rare_and_common(vcf, settings, np.random.default_rng(1))
    llr = model_scores("rarity", genome, tested.variants, model, out)
    chain = chain_scores(chains, genome, tested.variants)
    change, of_fitting = changes(genome, tested.variants), changes(genome, fitting.variants)
    is_rare = fitting.truth.astype(float)
    flagged = np.array([is_cpg_transition(name) for name in of_fitting])
    sign = 1 if is_rare[flagged].mean() > is_rare[~flagged].mean() else -1
    found = ranked(
        tested,
        {
            MODEL: -llr,
            CHAIN: -chain,
            CPG: sign * np.array([is_cpg_transition(name) for name in change]).astype(float),
            TABLE: by_class(change, class_means(of_fitting, is_rare)),
            f"{MODEL}, change removed": -without_change(change, np.nan_to_num(llr)),
            f"{CHAIN}, change removed": -without_change(change, chain),
        },
        resamples,
    )
    kinds = f"{int(tested.truth.sum()):,} rare, {int((1 - tested.truth).sum()):,} common variants"
    return (
        f"## Rare against common variants\n\n{kinds} in {len(set(tested.cluster))} blocks. The table and the sign of "
        f"the flag are fitted on {len(fitting.variants):,} variants of {len(set(fitting.cluster))} other blocks.\n\n"
        f"{report(found)}"
    )


# Effects measured by MPRA


def judge_mpra(chains: Chains, model: tuple, path: Path, settings: Mapping, resamples: int, out: Path) -> str:
    elements, rng = read_elements(path, settings["least_barcodes"]), np.random.default_rng(2)
    fasta = out / "mpra_elements.fa"
    fasta.write_text("".join(f">{element.name}\n{element.bases}\n" for element in elements))
    tasks = []
    with Genome.open(fasta) as genome:
        for element in elements:
            # with fewer bases beside it a variant has no score
            inside = [row for row in element.effects if 30 <= row[0] < len(element.bases) - 36]
            rows = some_of(inside, settings["each"], rng)
            variants = [(element.name, p, element.bases[p], alternative) for p, alternative, _ in rows]
            tasks.append(Task(variants, np.array([e for *_, e in rows]), np.zeros(len(rows))))
        every = [variant for task in tasks for variant in task.variants]
        sizes = np.cumsum([len(task.variants) for task in tasks])[:-1]
        llr = np.split(model_scores("mpra", genome, every, model, out), sizes)
        chain = np.split(chain_scores(chains, genome, every), sizes)
        change = [changes(genome, task.variants) for task in tasks]
    size = [np.abs(task.truth) for task in tasks]
    places = [element.where for element in elements]
    columns: dict[str, list[float]] = {}
    for i, task in enumerate(tasks):
        other = [j for j in range(len(tasks)) if places[j] != places[i]]
        names = [name for j in other for name in change[j]]
        tables = [
            class_means(names, np.concatenate([values[j] for j in other]))
            for values in ([task.truth for task in tasks], size)
        ]
        flag = np.array([is_cpg_transition(name) for name in change[i]]).astype(float)
        for name, signed, unsigned in (
            (MODEL, llr[i], np.abs(llr[i])),
            (CHAIN, chain[i], np.abs(chain[i])),
            (CPG, -flag, flag),
            (TABLE, *(by_class(change[i], means) for means in tables)),
        ):
            rows = np.isfinite(signed)
            columns.setdefault(f"{name}, effect", []).append(spearman(task.truth[rows], signed[rows]))
            columns.setdefault(f"{name}, size", []).append(spearman(size[i][rows], unsigned[rows]))
    cluster = np.unique([f"{c}:{p}" for c, p in places], return_inverse=True)[1]
    found: dict[str, dict[str, Score]] = {}
    for name, values in columns.items():
        method, what = name.rsplit(", ", 1)
        rho, ours = np.array(values), np.array(columns[f"{MODEL}, {what}"])

        def means(drawn: np.ndarray, rho: np.ndarray = rho, ours: np.ndarray = ours) -> dict[str, float]:
            return {"rho": float(rho[drawn].mean()), "ahead": float((ours - rho)[drawn].mean())}

        scores = bootstrap(means, len(rho), resampled(len(rho), resamples, 0, cluster))
        found.setdefault(method, {})[f"Spearman, {what}"] = scores["rho"]
        if method != MODEL:
            found[method][f"{MODEL} ahead by ({what})"] = scores["ahead"]
    each = ["| element | bp | rows | " + " | ".join(columns) + " |", "|---" * (len(columns) + 3) + "|"]
    each += [
        f"| {element.name} | {len(element.bases)} | {len(task.variants)} | "
        + " | ".join(f"{values[i]:.3f}" for values in columns.values())
        + " |"
        for i, (element, task) in enumerate(zip(elements, tasks, strict=True))
    ]
    return (
        f"## MPRA saturation mutagenesis\n\n{len(every):,} substitutions in {len(elements)} experiments at "
        f"{len(set(places))} places. Mean over the experiments of Spearman's rho with the effect and with its size; "
        f"the bootstrap draws places. The table is the mean effect (size) at all other places.\n\n{report(found)}\n\n"
        + "\n".join(each)
    )


# Splice sites


def introns(annotation: Path) -> list[tuple[int, int, str]]:
    """Start, end and strand of the introns of chr20 that lie in the held-out ranges."""
    ranges, found = held_out_ranges(), set()
    for transcript in read_annotation(annotation):
        if transcript.contig == "chr20":
            for (_, start), (end, _) in zip(transcript.exons, transcript.exons[1:], strict=False):
                if any(low <= start and end <= high for low, high in ranges):
                    found.add((int(start), int(end), transcript.strand))
    return sorted(found)


def knock_outs(
    genome: Genome, annotation: Path, settings: Mapping, rng: np.random.Generator
) -> dict[str, Task]:
    """Pairs of a substitution of one of the two bases GT (AG) of a donor (acceptor), and the same trinucleotide change
    at the nearest place deeper in the intron. 1: the splice site."""
    near, far = settings["control_bp"]
    usable = [(a, b, strand) for a, b, strand in introns(annotation) if b - a > 2 * far]
    reported = [row for row in usable if row[0] >= REPORTED[0] and row[1] <= REPORTED[1]]
    others = [row for row in usable if row not in set(reported)]
    half = settings["each"] // 2
    chosen = some_of(reported, half, rng) + some_of(others, half, rng)
    introns_20 = [Intron("20", *row) for row in chosen]
    tasks = {}
    for kind in MOTIFS:
        pairs = splice_pairs(genome, introns_20, kind, (near, far), rng)
        variants = [variant for pair in pairs for variant in pair]
        blocks = np.array([pair[0][1] // settings["block_bp"] for pair in pairs]).repeat(2)
        tasks[kind] = Task(variants, np.tile([1, 0], len(pairs)), blocks)
    return tasks


def judge_splicing(
    genome: Genome,
    chains: Chains,
    model: tuple,
    annotation: Path,
    settings: Mapping,
    resamples: int,
    out: Path,
) -> str:
    parts = []
    for kind, task in knock_outs(genome, annotation, settings, np.random.default_rng(3)).items():
        scores = {
            MODEL: -model_scores(f"splice_{kind}", genome, task.variants, model, out),
            CHAIN: -chain_scores(chains, genome, task.variants),
        }
        for where, keep in (
            ("all held-out ranges", None),
            ("60-63 Mb only", lambda variant: REPORTED[0] <= variant[1] < REPORTED[1]),
        ):
            found = ranked(task, scores, resamples, keep)
            number = sum(keep is None or keep(variant) for variant in task.variants) // 2
            parts.append(f"### Splice {kind}, {number} pairs, {where}\n\n{report(found)}")
    return (
        "## Splice sites\n\nA substitution of one of the two bases of the motif against the same trinucleotide change "
        "deeper in the same intron. CpG flag and trinucleotide table are equal within a pair: their AUROC is 0.5.\n\n"
        + "\n\n".join(parts)
    )


def report(found: dict[str, dict[str, Score]]) -> str:
    """A table; a method that is not compared with the model has no difference."""
    names = list(dict.fromkeys(name for scores in found.values() for name in scores))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, scores in found.items():
        lines.append(f"| {row} | " + " | ".join(str(scores.get(name, "")) for name in names) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("recipe_data"), help="packages are fetched to here")
    parser.add_argument("--out", type=Path, default=Path("recipe_runs"), help="scores and results go here")
    parser.add_argument("--mpra", type=Path, help="data/elements.tsv.gz of MPRA_SaturationMutagenesis")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    settings = tomllib.loads((HERE / "variant_effects.toml").read_text())
    clock, resamples, out = Clock(), settings["bootstrap"]["resamples"], chosen.out
    fasta, vcf = (debian(name, chosen.data) for name in ("vt-examples", "shapeit4-example"))
    annotation = wheel("pyrose2", chosen.data) / "rose2/annotation/hg19_refseq.ucsc"
    genome, model = Genome.open(fasta), load_model(settings["model"])
    clock.lap("fetching and reading")
    ranges = np.array(held_out_ranges())
    held_out = Intervals(np.zeros(len(ranges), np.int64), ranges[:, 0], ranges[:, 1])
    chains = fit_chains([genome.arrays], [held_out], settings["chain_bp"])
    clock.lap("Markov chains")
    parts = [
        f"# Single-base variants, {settings['model']}",
        f"{CHAIN}: order {chains.best_order}, fitted on chr20 outside the held-out ranges. Intervals: 95 %, bootstrap "
        "of blocks.",
    ]
    if chosen.mpra is not None:
        parts.append(judge_mpra(chains, model, chosen.mpra, settings["mpra"], resamples, out))
        clock.lap("MPRA")
    parts.append(judge_splicing(genome, chains, model, annotation, settings["splice"], resamples, out))
    clock.lap("splice sites")
    parts.append(judge_rarity(genome, chains, model, vcf, settings["rare_common"], resamples, out))
    clock.lap("rare against common")
    genome.close()
    finish(out, "variant_effects", "\n\n".join(parts), clock)


if __name__ == "__main__":
    main()
