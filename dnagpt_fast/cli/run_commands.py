"""The commands that train: plan, pretrain, finetune, predict."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import Config, Device, Products, Resume, Start, flag, option
from dnagpt_fast.progress import quiet, standard_error


@prints("output", "steps", "report")
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
) -> Report | None:
    """Pre-train a DNAGPT from packed genomes: next token, GC content, sequence order.

    $ dnagpt-fast pretrain --demo -o dnagpt_demo
    $ dnagpt-fast pretrain --config pretrain.toml -o run
    $ dnagpt-fast pretrain -o run --resume
    """
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
    if not _is_main():
        return None
    if demo and not quiet.get():
        show_sample(out, standard_error())
    report = None if outcome.report is None else outcome.report.to_dict()
    return Report(f"the run is in {out}", {"output": out, "steps": outcome.steps, "report": report})


@prints(
    "model", "parameters", "precision", "device", "gpus", "sharded", "fits", "memory_bytes", "batch_size",
    "micro_batch", "steps", "bases", "tokens_per_s", "hours", "checkpoint_bytes", "disk_bytes", "remedies",
)  # fmt: skip
def plan(
    model: Annotated[
        str | None,
        option(
            "--model", "a published shape: dna_gpt0.1b_h, dna_gpt0.1b_m or dna_gpt3b_m; needs --corpus-bp"
        ),
    ] = None,
    corpus_bp: Annotated[float | None, typer.Option(help="base pairs of the genomes, e.g. 3.1e9")] = None,
    config: Config = None,
    settings: Annotated[
        list[str] | None, option("--set", ", e.g. model.num_layers=6; repeat for more")
    ] = None,
    gpu: Annotated[
        str,
        typer.Option(help="h100, h200, a100, b200, l40s, a10, rtx4090, v100 ...; this machine: this, or cpu"),
    ] = "h100",
    gpus: Annotated[int, typer.Option(help="number of GPUs on all machines")] = 1,
    epochs: Annotated[float, option("--epochs")] = 1.0,
    batch_size: Annotated[
        int, option("--batch-size", ", over all GPUs; 0: as many as fit", rich_help_panel=None)
    ] = 0,
    micro_batch: Annotated[int, typer.Option(help="sequences of one forward pass; 0: as many as fit")] = 0,
    precision: Annotated[
        str | None, typer.Option(help="bf16 or fp32; default bf16 where the device has it")
    ] = None,
    utilisation: Annotated[float, typer.Option(help="assumed share of the peak FLOP/s")] = 0.4,
    sharded: Annotated[
        bool | None, typer.Option("--sharded/--replicated", help="FSDP2; by default only if needed")
    ] = None,
    checkpointing: Annotated[
        bool, flag("--checkpointing", "recompute activations in the backward pass")
    ] = False,
    keep: Annotated[int, typer.Option(help="checkpoints kept on disk")] = 3,
) -> Report:
    """Estimate the cost of a pre-training run: memory per GPU, batch, steps, time, disk. Exit code 1: does not fit.

    Of a published shape and a corpus, or of the settings of --config, with its own steps and batch.

    $ dnagpt-fast plan --model dna_gpt0.1b_m --corpus-bp 3.1e9 --gpus 8
    $ dnagpt-fast plan --config pretrain.toml --gpu cpu
    """
    from dnagpt_fast.planning.plan import Request, make_plan
    from dnagpt_fast.pretrain.estimate import with_settings
    from dnagpt_fast.pretrain.settings import load_config

    own = config is not None or bool(settings)
    if own == (model is not None):
        raise typer.BadParameter("wanted --model or --config, and not both", param_hint="--model")
    if not own and corpus_bp is None:
        raise typer.BadParameter("wanted with --model: base pairs of the genomes", param_hint="--corpus-bp")
    chosen = {
        "--corpus-bp": corpus_bp, "--batch-size": batch_size, "--micro-batch": micro_batch, "--precision": precision,
        "--sharded": sharded, "--checkpointing": checkpointing, "--epochs": epochs != 1, "--keep": keep != 3,
    }  # fmt: skip
    if own and (given := [name for name, value in chosen.items() if value]):
        raise typer.BadParameter("is in the settings of --config: change it by --set", param_hint=given[0])
    request = Request(
        model=model or "",
        gpu=gpu,
        gpus=gpus,
        corpus_bp=corpus_bp or 1.0,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch=micro_batch,
        precision=precision or "",
        utilisation=utilisation,
        sharded=sharded,
        checkpointing=checkpointing,
        keep=keep,
    )
    made = make_plan(with_settings(request, load_config(config, settings or [])) if own else request)
    rows = made.rows()
    width = max(len(label) for label, _ in rows)
    return Report(
        [f"{label:{width}}  {value}" for label, value in rows],
        made.values(),
        is_result=True,
        notes=made.remedies(),
        code=int(not made.fits),
    )


@prints("output", "runs")
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
) -> Report | None:
    """Fine-tune a DNAGPT on labelled sequences, haplotypes or the features of a genome.

    $ dnagpt-fast finetune --start pretrained --data labels.csv -o new
    $ dnagpt-fast finetune -o new --resume
    """
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
    if not _is_main():
        return None
    runs = [{"steps": outcome.steps, "report": outcome.report} for outcome in outcomes]
    return Report(f"the run is in {out}", {"output": out, "runs": runs})


def _is_main() -> bool:
    """False in all processes of torchrun except one."""
    from dnagpt_fast.training.processes import Processes

    return Processes.from_environment().is_main


@prints("output", "answers")
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
) -> Report:
    """Predict the labels of new sequences with a fine-tuned model.

    $ dnagpt-fast predict tuned labels.csv -o answers.tsv
    """
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
    count = len(found.where)
    return Report(f"{output}: {count:,} answers", {"output": output, "answers": count}, output=output)
