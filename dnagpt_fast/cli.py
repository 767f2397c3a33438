"""The command line `dnagpt-fast`. Each command is a thin function: it reads options, calls one module, prints.

Exit codes: 0 done, 1 the input or the work failed (one line on stderr), 2 the command line was wrong, 130 interrupted.
DNAGPT_FAST_TRACEBACK=1 shows where an error came from.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, TextIO

import typer

app = typer.Typer(
    name="dnagpt-fast",
    help="Train, fine-tune and use DNAGPT straight from packed 2-bit genomes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def every_command() -> None:
    """Train, fine-tune and use DNAGPT straight from packed 2-bit genomes."""


@app.command()
def pack(
    files: Annotated[
        list[Path], typer.Argument(metavar="FASTA... TWOBIT", help="FASTA in (plain, gzip, BGZF); .2bit out")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the .2bit; then every FILE is a FASTA")
    ] = None,
) -> None:
    """Pack FASTA files into one UCSC .2bit file."""
    from dnagpt_fast.genome.pack import pack_fasta

    if output is None:
        if len(files) < 2:
            raise typer.BadParameter(
                "wanted one FASTA file or more, then the .2bit file to write", param_hint="FILES"
            )
        *files, output = files
    began = time.monotonic()
    written = pack_fasta(files, output)
    typer.echo(
        f"{output}: {written.contigs:,} contigs, {written.bases:,} bp in {written.file_bytes:,} bytes, "
        f"{time.monotonic() - began:.1f} s"
    )


@app.command()
def info(
    genome: Annotated[Path, typer.Argument(help=".2bit or FASTA (plain, gzip, BGZF)")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a contig, one a line")] = False,
) -> None:
    """List the contigs of a genome: length, N, soft mask, GC."""
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.inventory import contig_rows, total_row

    with Genome.open(genome) as opened:
        rows = list(contig_rows(opened))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row.as_dict()))
        return
    if len(rows) > 1:
        rows.append(total_row(rows))
    width = max(len("contig"), *(len(row.name) for row in rows))
    typer.echo(
        f"{'contig':{width}} {'length_bp':>15} {'N_bp':>13} {'N_blocks':>9} {'masked_bp':>15} {'GC':>7}"
    )
    for row in rows:
        gc = "-" if row.gc is None else f"{row.gc:.4f}"
        typer.echo(
            f"{row.name:{width}} {row.length_bp:>15,} {row.n_bp:>13,} {row.n_blocks:>9,} {row.masked_bp:>15,} {gc:>7}"
        )


@app.command(name="make-task")
def make_task_command(
    kind: Annotated[str, typer.Argument(help="tis, pas, splice, splice-donor or splice-acceptor")],
    genome: Annotated[Path, typer.Option(help=".2bit or FASTA")],
    annotation: Annotated[Path, typer.Option(help="refGene table, GTF or GFF3, plain or .gz")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the .tsv or .csv to write")],
    window_bp: Annotated[int, typer.Option(help="bases around the motif, half on each side")] = 600,
    keep_motif: Annotated[bool, typer.Option(help="leave the motif in the sequence")] = False,
    negatives: Annotated[float, typer.Option(help="hard negatives for each positive")] = 1.0,
    within_genes: Annotated[bool, typer.Option(help="negatives from inside transcripts only")] = False,
    block_bp: Annotated[int, typer.Option(help="block of the split by chromosome block")] = 1_000_000,
    shares: Annotated[tuple[float, float, float], typer.Option(help="of training, validation and test")] = (
        0.7,
        0.1,
        0.2,
    ),
    max_n_share: Annotated[float, typer.Option(help="windows with more N are left out")] = 0.05,
    seed: Annotated[int, typer.Option(help="of the negatives and the split")] = 0,
) -> None:
    """Cut labelled windows for fine-tuning out of a genome and its annotation."""
    from dnagpt_fast.finetuning.annotation import read_annotation
    from dnagpt_fast.finetuning.sites import TaskSettings, make_task
    from dnagpt_fast.genome import Genome

    settings = TaskSettings(
        kind, window_bp, keep_motif, negatives, within_genes, max_n_share, shares, block_bp, seed
    )
    with Genome.open(genome) as opened:
        summary = make_task(opened, read_annotation(annotation), settings, output)
    typer.echo(json.dumps(summary, indent=2))


@app.command()
def pretrain(
    out: Annotated[Path | None, typer.Option("--out", help="the run's folder; new, unless --resume")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="settings, a TOML file")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="one setting: section.key=value, e.g. optimizer.lr=3e-4")
    ] = None,
    genomes: Annotated[
        list[str] | None,
        typer.Option("--genome", help="SPECIES=FILE (.2bit or FASTA), added to data.genomes"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue in --out where its newest checkpoint ends")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="a small model on the packaged megabase of human chr22")
    ] = False,
) -> None:
    """Pre-train a DNAGPT from packed genomes: next token, GC content, sequence order."""
    from dnagpt_fast.demo import DEMO_CONFIG, free_folder, show_sample
    from dnagpt_fast.pretrain import pretrain as run
    from dnagpt_fast.training_config import load_config, settings_of_run

    if demo and config is not None:
        raise typer.BadParameter("--demo brings its own settings: leave --config out", param_hint="--demo")
    if out is None:
        if not demo or resume:
            raise typer.BadParameter("wanted the folder of the run", param_hint="--out")
        out = free_folder(Path("dnagpt_demo"))
    source = DEMO_CONFIG if demo else config
    if resume and source is None and not genomes:
        source = settings_of_run(out)
    outcome = run(load_config(source, settings or [], genomes or []), out, resume=resume)
    if outcome.stopped_by is not None:
        raise typer.Exit(128 + signal.Signals[outcome.stopped_by])
    if demo:
        show_sample(out)
    typer.echo(f"the run is in {out}")


Model = Annotated[
    Path, typer.Argument(help="published .pth, run folder, its checkpoint, or Hugging Face folder")
]
Source = Annotated[Path, typer.Argument(help=".2bit or FASTA (plain, gzip, BGZF)")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; default cuda where there is one")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default as stored")]
Heads = Annotated[
    int | None, typer.Option(help="attention heads, where a bare file of another shape does not say")
]
Prefix = Annotated[str, typer.Option(help="tokens before every sequence; the species token the model knows")]
WindowBp = Annotated[int | None, typer.Option(help="cut contigs into windows of so many bases, a row each")]
BothStrands = Annotated[bool, typer.Option(help="average with the reverse complement")]
MaxTokens = Annotated[int, typer.Option(help="tokens at once; bounds the memory")]


@app.command()
def generate(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="FASTA; default standard output")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="text to go on from; may be given again")] = None,
    samples: Annotated[int, typer.Option(help="sequences for each prompt")] = 1,
    max_tokens: Annotated[int, typer.Option(help="length to reach in tokens, the prompt's included")] = 256,
    greedy: Annotated[bool, typer.Option(help="always the most likely token")] = False,
    temperature: Annotated[float, typer.Option()] = 1.0,
    top_k: Annotated[int, typer.Option(help="draw from the k most likely tokens; 0: off")] = 0,
    top_p: Annotated[
        float, typer.Option(help="draw from the most likely tokens up to this share; 0: off")
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="same seed, prompt and sample number: same sequence")] = 0,
    bases_only: Annotated[
        bool, typer.Option(help="draw k-mers of A, C, G, T only, up to the full length")
    ] = False,
    crop_to: Annotated[
        int | None,
        typer.Option(help="past max_len: go on from so many tokens (fast); default as the original"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="sequences at once")] = 16,
    device: Device = None,
    dtype: Dtype = None,
    num_heads: Heads = None,
) -> None:
    """Sample sequences from a model into FASTA."""
    from dnagpt_fast.model_commands import generate_fasta, open_model

    opened, tokenizer = open_model(model, device, dtype, num_heads)
    settings = {
        "max_tokens": max_tokens,
        "num_samples": samples,
        "do_sample": not greedy,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "bases_only": bases_only,
        "crop_to": crop_to,
        "batch_size": batch_size,
    }
    count = generate_fasta(opened, tokenizer, prompt or ["<R>"], output, settings)
    if output is not None:
        typer.echo(f"{output}: {count} sequences")


@app.command()
def embed(
    model: Model,
    genome: Source,
    output: Annotated[
        Path, typer.Option("--output", "-o", help=".npy or .safetensors; names beside it in .names")
    ],
    layer: Annotated[int, typer.Option(help="0 the embeddings, i after block i, -1 the last")] = -1,
    pooling: Annotated[str, typer.Option(help="mean, last or max over the k-mers")] = "mean",
    window_bp: WindowBp = None,
    both_strands: BothStrands = False,
    prefix: Prefix = "<R>",
    max_tokens: MaxTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    num_heads: Heads = None,
) -> None:
    """One vector for each sequence of a file."""
    from dnagpt_fast.model_commands import embed_file, open_model

    opened, tokenizer = open_model(model, device, dtype, num_heads)
    settings = {
        "layer": layer,
        "pooling": pooling,
        "both_strands": both_strands,
        "prefix": prefix,
        "max_tokens": max_tokens,
    }
    rows, width = embed_file(opened, tokenizer, genome, output, window_bp, settings)
    typer.echo(f"{output}: {rows} vectors of {width}")


@app.command()
def score(
    model: Model,
    genome: Source,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="table; default standard output")
    ] = None,
    window_bp: WindowBp = None,
    substitution: Annotated[
        list[str] | None,
        typer.Option(help="CONTIG:POSITION:BASE, 0-based; scores it instead of the sequences"),
    ] = None,
    both_strands: BothStrands = False,
    prefix: Prefix = "<R>",
    overlap: Annotated[int | None, typer.Option(help="k-mers of context that windows share")] = None,
    max_tokens: MaxTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    num_heads: Heads = None,
) -> None:
    """Log-likelihood of each sequence of a file, or of single-base substitutions."""
    from dnagpt_fast.model_commands import open_model, score_lines, substitution_lines, write_lines

    if substitution and (window_bp is not None or both_strands or overlap is not None):
        raise typer.BadParameter("goes with --prefix only", param_hint="--substitution")
    opened, tokenizer = open_model(model, device, dtype, num_heads)
    if substitution:
        write_lines(substitution_lines(opened, tokenizer, genome, substitution, prefix), output)
        return
    settings = {"both_strands": both_strands, "prefix": prefix, "overlap": overlap, "max_tokens": max_tokens}
    write_lines(score_lines(opened, tokenizer, genome, window_bp, settings), output)


@app.command(name="convert")
def convert_command(
    source: Model,
    target: Annotated[Path, typer.Argument(help="what to write; must not be there yet")],
    to: Annotated[
        str, typer.Option(help="official (.pth), safetensors (one file), folder or hf (Hugging Face)")
    ],
    num_heads: Heads = None,
) -> None:
    """Turn a model from any of its forms on disk into another; every tensor keeps its bits."""
    from dnagpt_fast.convert import convert

    convert(source, target, to, num_heads=num_heads)
    typer.echo(f"{target}: {to}")


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="a published shape: dna_gpt0.1b_h, dna_gpt0.1b_m, dna_gpt3b_m")],
    corpus_bp: Annotated[float, typer.Option(help="base pairs of the genomes, e.g. 3.1e9")],
    gpu: Annotated[str, typer.Option(help="h100, h200, a100, b200, l40s, a10, rtx4090, v100 ...")] = "h100",
    gpus: Annotated[int, typer.Option(help="how many, on all machines")] = 1,
    epochs: Annotated[float, typer.Option(help="passes over the corpus")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="samples of a step over all GPUs; 0: whatever fits")] = 0,
    micro_batch: Annotated[int, typer.Option(help="samples of one forward pass; 0: as many as fit")] = 0,
    precision: Annotated[str, typer.Option(help="bf16 or fp32")] = "bf16",
    utilisation: Annotated[float, typer.Option(help="assumed share of the peak FLOP/s")] = 0.4,
    sharded: Annotated[
        bool | None, typer.Option("--sharded/--replicated", help="FSDP2; by default only where it must be")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="compute activations again in the backward pass")
    ] = False,
    keep: Annotated[int, typer.Option(help="checkpoints kept on disk")] = 3,
) -> None:
    """Say what a pre-training run will take: memory per GPU, batch, steps, hours, disk. Exit code 1: no fit."""
    from dnagpt_fast.plan import Request, make_plan

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


@app.command()
def doctor() -> None:
    """Say what is installed, what is built, which implementation each op takes here, and how to mend what is amiss."""
    from dnagpt_fast.doctor import examine

    findings = examine()
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.well else 'FAIL'} {finding.what:{width}}  {finding.told}")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


@app.command()
def finetune(
    out: Annotated[Path, typer.Option("--out", help="the run's folder; new, unless --resume")],
    config: Annotated[Path | None, typer.Option("--config", help="settings, a TOML file")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="classification, regression or generation (task.kind)")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="run folder, official checkpoint or Hugging Face folder")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="labelled sequences: table, FASTA, BED, VCF, .haps")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="one setting: section.key=value, e.g. optimizer.lr=3e-5")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue in --out where its newest checkpoint ends")
    ] = False,
) -> None:
    """Fine-tune a DNAGPT on labelled sequences or haplotypes."""
    from dnagpt_fast.finetune import finetune as run
    from dnagpt_fast.finetuning.settings import load_finetune_config
    from dnagpt_fast.training_config import settings_of_run

    source = settings_of_run(out) if resume and config is None else config
    given = [
        f"{key}={value}"
        for key, value in (("task.kind", task), ("start.path", start), ("data.path", data))
        if value is not None
    ]
    outcomes = run(load_finetune_config(source, [*(settings or []), *given]), out, resume=resume)
    if outcomes[-1].stopped_by is not None:
        raise typer.Exit(128 + signal.Signals[outcomes[-1].stopped_by])
    typer.echo(f"the run is in {out}")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="folder of a fine-tuning run")],
    data: Annotated[Path, typer.Argument(help="sequences: table, FASTA or BED")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the .tsv or .csv to write")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="a data setting other than the run's, e.g. data.on_long=window"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Ask a fine-tuned model about new sequences."""
    from dnagpt_fast.finetune import predict as answer
    from dnagpt_fast.finetuning.settings import load_finetune_config
    from dnagpt_fast.training_config import settings_of_run

    config = load_finetune_config(settings_of_run(run), [*(settings or []), f"data.path={data}"])
    found, _ = answer(run, config.data, output, device=device)
    typer.echo(f"{output}: {len(found.where):,} answers")


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits; bad input is one line on stderr, not a traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            app(args=arguments, prog_name="dnagpt-fast")
        except (ValueError, IndexError, OSError, RuntimeError, ImportError) as error:
            if os.environ.get("DNAGPT_FAST_TRACEBACK") == "1":
                raise
            typer.echo(f"dnagpt-fast: error: {_one_line(error)}", err=True)
            sys.exit(1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"dnagpt-fast: warning: {message}", err=True)


if __name__ == "__main__":
    main()
