"""The command that runs the field's benchmarks: evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import (
    BatchTokens,
    BothStrands,
    Device,
    Dtype,
    Pooling,
    Prefix,
    Resume,
    option,
)
from dnagpt_fast.output_files import refuse_inputs


@prints("suite", "about", "job", "models", "versions", "seconds", "tasks")
def evaluate(
    suite: Annotated[
        str,
        typer.Argument(help="gue, genomic-benchmarks, poly-a, variants, mpra, zero-shot or lm"),
    ],
    data: Annotated[Path, option("--data", "folder or file of the suite, see docs/benchmarks.md")],
    model: Annotated[
        list[str],
        option("--model", "in any form, or hf:FOLDER for any causal model; repeat for more"),
    ],
    output: Annotated[Path, option("--out", "folder of the report; new")],
    genome: Annotated[Path | None, option("--genome", "; of the positions in the data")] = None,
    annotation: Annotated[
        Path | None, option("--annotation", "; for the codon and splice-site tasks of zero-shot")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="only this task of the suite; repeat for more")
    ] = None,
    way: Annotated[
        list[str] | None,
        typer.Option(help="frozen, likelihood (both by default) or tuned (fine-tuning); repeat for more"),
    ] = None,
    max_rows: Annotated[int, typer.Option(help="most rows of each part, drawn with --seed; 0: all")] = 0,
    window_bp: Annotated[int, option("--window-bp", ", of lm and zero-shot; 0: 1,200")] = 0,
    seed: Annotated[int, option("--seed", "rows, splits, random weights, fine-tuning")] = 0,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="random weights of the same shape beside")
    ] = True,
    lr: Annotated[
        list[float] | None,
        typer.Option(
            help="learning rate of --way tuned; repeat for more: the best on dev; default 1e-4, 3e-4, 1e-3"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="runs of --way tuned")] = 3,
    epochs: Annotated[int, option("--epochs", "; of --way tuned")] = 5,
    batch_size: Annotated[int, option("--batch-size", "; of --way tuned")] = 32,
    on_long: Annotated[
        str,
        typer.Option(help="sequences too long to tune on: error, crop_end, crop_start, crop_both or window"),
    ] = "error",
    species: Annotated[str, typer.Option(help="of the prompt of --way tuned")] = "human",
    pooling: Pooling = "mean",
    both_strands: BothStrands = False,
    resamples: Annotated[int, typer.Option(help="of the bootstrap")] = 1000,
    resume: Resume = False,
    prefix: Prefix = "<R>",
    max_tokens: BatchTokens = 16_384,
    device: Device = None,
    dtype: Dtype = None,
) -> Report:
    """Run a benchmark suite on models: scores with intervals beside plain baselines and random weights.

    With --json the content of report.json. The data of each suite: docs/benchmarks.md

    $ dnagpt-fast evaluate gue --data GUE --model dna_gpt6m_m -o report
    """
    from dnagpt_fast.model.embed import POOLINGS
    from dnagpt_fast.suites.job import Choices
    from dnagpt_fast.suites.job import evaluate as run
    from dnagpt_fast.suites.subjects import HowToRun
    from dnagpt_fast.suites.task import FROZEN, LIKELIHOOD, Source
    from dnagpt_fast.suites.tuned import Tuning

    for name, value, least in (
        ("--max-rows", max_rows, 0), ("--window-bp", window_bp, 0), ("--seeds", seeds, 1), ("--epochs", epochs, 1),
        ("--batch-size", batch_size, 1), ("--resamples", resamples, 1), ("--seed", seed, 0),
    ):  # fmt: skip
        if value < least:
            raise typer.BadParameter(f"{value}: wanted {least} or more", param_hint=name)
    if pooling not in POOLINGS:
        raise typer.BadParameter(f"wanted one of {', '.join(POOLINGS)}", param_hint="--pooling")
    refuse_inputs(output, data, genome, annotation)
    source = Source(
        data, genome, annotation, tuple(only or ()), max_rows=max_rows, seed=seed, window_bp=window_bp
    )
    tuning = Tuning(
        lrs=tuple(lr or Tuning.lrs), seeds=seeds, epochs=epochs, batch_size=batch_size, on_long=on_long,
        species=species,
    )  # fmt: skip
    how = HowToRun(device, dtype, prefix, pooling, both_strands, max_tokens, seed)
    choices = Choices(tuple(model), tuple(way or (FROZEN, LIKELIHOOD)), controls, how, tuning, resamples)
    report = run(suite, source, choices, output, resume=resume)
    return Report(f"{output}: {len(report['tasks'])} tasks, {report['seconds']:,.1f} s", report)
