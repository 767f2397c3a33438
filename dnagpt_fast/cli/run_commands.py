"""The commands that train: plan, pretrain, finetune, predict."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.options import Config, Device, Products, Resume, Start, flag, option
from dnagpt_fast.output_files import is_stream


def pretrain(
    out: Annotated[
        Path | None,
        option("--out", "folder of the run; new, unless --resume"),
    ] = None,
    config: Config = None,
    settings: Annotated[
        list[str] | None, option("--set", ", e.g. optimizer.lr=3e-4; repeat for more")
    ] = None,
    genomes: Annotated[
        list[str] | None,
        option(
            "--genome",
            ", as SPECIES=FILE: added to data.genomes, repeat for more; with --resume: the new path of that genome",
        ),
    ] = None,
    resume: Resume = False,
    start: Start = None,
    demo: Annotated[bool, flag("--demo", "a small model on the packaged megabase of human chr22")] = False,
) -> None:
    """Pre-train a DNAGPT from packed genomes: next token, GC content, sequence order."""
    from dnagpt_fast.pretrain.demo import DEMO_CONFIG, free_folder, show_sample
    from dnagpt_fast.pretrain.run import pretrain as run
    from dnagpt_fast.pretrain.settings import load_config
    from dnagpt_fast.training.settings import settings_of_run

    if demo and config is not None:
        raise typer.BadParameter("--demo has its own settings: wanted no --config", param_hint="--demo")
    if out is None:
        if not demo or resume:
            raise typer.BadParameter("wanted the folder of the run", param_hint="--out")
        out = free_folder(Path("dnagpt_demo"))
    source = DEMO_CONFIG if demo else config
    # A job that always uses --resume may have all its settings on the command line, and no folder yet.
    of_run = resume and source is None and (not genomes or (out / "config.json").is_file())
    if of_run:
        source = settings_of_run(out)
    overrides = [*(settings or []), *([f"start.path={start}"] if start is not None else [])]
    outcome = run(load_config(source, overrides, genomes or [], moved=of_run), out, resume=resume)
    if outcome.stopped_by is not None:
        raise typer.Exit(128 + signal.Signals[outcome.stopped_by])
    if _is_main():
        if demo:
            show_sample(out)
        typer.echo(f"the run is in {out}")


def plan(
    model: Annotated[
        str, option("--model", "a published shape, dna_gpt0.1b_h, dna_gpt0.1b_m or dna_gpt3b_m")
    ],
    corpus_bp: Annotated[float, typer.Option(help="base pairs of the genomes, e.g. 3.1e9")],
    gpu: Annotated[str, typer.Option(help="h100, h200, a100, b200, l40s, a10, rtx4090, v100 ...")] = "h100",
    gpus: Annotated[int, typer.Option(help="number of GPUs on all machines")] = 1,
    epochs: Annotated[float, option("--epochs")] = 1.0,
    batch_size: Annotated[int, option("--batch-size", ", over all GPUs; 0: as many as fit")] = 0,
    micro_batch: Annotated[int, typer.Option(help="sequences of one forward pass; 0: as many as fit")] = 0,
    precision: Annotated[str, typer.Option(help="bf16 or fp32")] = "bf16",
    utilisation: Annotated[float, typer.Option(help="assumed share of the peak FLOP/s")] = 0.4,
    sharded: Annotated[
        bool | None, typer.Option("--sharded/--replicated", help="FSDP2; by default only if needed")
    ] = None,
    checkpointing: Annotated[
        bool, flag("--checkpointing", "recompute activations in the backward pass")
    ] = False,
    keep: Annotated[int, typer.Option(help="checkpoints kept on disk")] = 3,
) -> None:
    """Estimate the cost of a pre-training run: memory per GPU, batch, steps, hours, disk. Exit code 1: does not fit."""
    from dnagpt_fast.planning.plan import Request, make_plan

    made = make_plan(
        Request(
            model=model,
            gpu=gpu,
            gpus=gpus,
            corpus_bp=corpus_bp,
            epochs=epochs,
            batch_size=batch_size,
            micro_batch=micro_batch,
            precision=precision,
            utilisation=utilisation,
            sharded=sharded,
            checkpointing=checkpointing,
            keep=keep,
        )
    )
    rows = made.rows()
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        typer.echo(f"{label:{width}}  {value}")
    for line in made.remedies():
        typer.echo(line, err=True)
    if not made.fits:
        raise typer.Exit(1)


def finetune(
    out: Annotated[
        Path,
        option("--out", "folder of the run; new, unless --resume"),
    ],
    config: Config = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="classification, regression, generation or tagging (task.kind)"),
    ] = None,
    start: Start = None,
    data: Annotated[
        Path | None,
        option("--data", "table, FASTA, BED, VCF, .haps; GFF3, GTF"),
    ] = None,
    settings: Annotated[
        list[str] | None, option("--set", ", e.g. optimizer.lr=3e-5; repeat for more")
    ] = None,
    resume: Resume = False,
) -> None:
    """Fine-tune a DNAGPT on labelled sequences, haplotypes or the features of a genome."""
    from dnagpt_fast.finetune.run import finetune as run
    from dnagpt_fast.finetune.settings import load_finetune_config
    from dnagpt_fast.training.settings import settings_of_run

    source = settings_of_run(out) if resume and config is None else config
    given = [
        f"{key}={value}"
        for key, value in (("task.kind", task), ("start.path", start), ("data.path", data))
        if value is not None
    ]
    outcomes = run(load_finetune_config(source, [*(settings or []), *given]), out, resume=resume)
    if outcomes[-1].stopped_by is not None:
        raise typer.Exit(128 + signal.Signals[outcomes[-1].stopped_by])
    if _is_main():
        typer.echo(f"the run is in {out}")


def _is_main() -> bool:
    """False in all processes of torchrun except one."""
    from dnagpt_fast.training.processes import Processes

    return Processes.from_environment().is_main


def predict(
    run: Annotated[Path, typer.Argument(help="folder of a fine-tuning run")],
    data: Annotated[Path, typer.Argument(help="sequences: table, FASTA or BED")],
    output: Annotated[Path, option("--out", "table, .tsv or .csv")],
    settings: Annotated[
        list[str] | None,
        option(
            "--set", " of the data that differs from the run's, e.g. data.on_long=window; repeat for more"
        ),
    ] = None,
    device: Device = None,
    products: Products = "float32",
) -> None:
    """Predict the labels of new sequences with a fine-tuned model."""
    from dnagpt_fast.finetune.predict import predict as answer
    from dnagpt_fast.finetune.settings import load_finetune_config
    from dnagpt_fast.json_files import read_json
    from dnagpt_fast.training.settings import ConfigError, settings_of_run

    source = settings_of_run(run)
    if read_json(source).get("kind") == "pretrain":
        raise ConfigError(
            f"{run} is a pre-training run, which answers no question about a sequence: tune it first with `dnagpt-fast "
            f"finetune --start {run}`"
        )
    config = load_finetune_config(source, [*(settings or []), f"data.path={data}"])
    found, _ = answer(run, config.data, output, device=device or "auto", products=products)
    typer.echo(f"{output}: {len(found.where):,} answers", err=is_stream(output))
