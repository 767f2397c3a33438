"""The commands about variants: variants."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.model_commands import Device, Dtype, Heads, MaxTokens, Model, Prefix, Source


def variants(
    model: Model,
    genome: Source,
    vcf: Annotated[Path, typer.Argument(metavar="VCF", help=".vcf, .vcf.gz (BGZF or gzip) or .bcf")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help=".vcf, .vcf.gz or .bcf (indexed), .tsv or .parquet"),
    ],
    rule: Annotated[
        str, typer.Option(help="dnagpt, full-ll (Evo 2, Carbon) or next-token (GENERator)")
    ] = "dnagpt",
    context_bp: Annotated[int | None, typer.Option(help="bases before a variant; default 384")] = None,
    after_bp: Annotated[
        int | None, typer.Option(help="bases after it whose probabilities count; default 192")
    ] = None,
    strands: Annotated[int | None, typer.Option(help="2, or 1 for the forward strand alone")] = None,
    phases: Annotated[int | None, typer.Option(help="token boundaries tried; divides k, default k")] = None,
    on_mismatch: Annotated[
        str, typer.Option(help="error, or flag: keep variants that do not fit the genome, with DG_FLAG")
    ] = "error",
    overwrite_tags: Annotated[bool, typer.Option(help="replace DG_ tags that the input has")] = False,
    resume: Annotated[bool, typer.Option(help="go on with an unfinished job of this output")] = False,
    prefix: Prefix = "<R>",
    max_tokens: MaxTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    num_heads: Heads = None,
) -> None:
    """Score the variants of a VCF file: what the model says of each alternative against the reference.

    Started by torchrun, the processes share the file.
    """
    import torch

    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.model.alleles import AlleleRule
    from dnagpt_fast.training.processes import Processes
    from dnagpt_fast.variants.annotate import DAYS_TO_WAIT, Annotation, annotate

    processes = Processes.from_environment()
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if place == "cuda" and processes.world_size > 1:
        place = f"cuda:{processes.local_rank}"
    opened, tokenizer = open_model(model, place, dtype, num_heads)
    settings = AlleleRule.of(
        opened, tokenizer, rule, strands=strands, phases=phases, context_bp=context_bp, after_bp=after_bp,
        prefix=prefix,
    )  # fmt: skip
    what = Annotation(
        vcf,
        str(output),
        on_mismatch,
        overwrite_tags,
        resume,
        max_tokens,
        " ".join(["dnagpt-fast", *sys.argv[1:]]),
    )
    with (
        Genome.open(genome) as opened_genome,
        processes.joined(torch.device(place), DAYS_TO_WAIT * 86_400),
    ):
        summary = annotate(opened, tokenizer, opened_genome, settings, what, processes=processes)
    if processes.is_main:
        rate = summary.alternatives / max(summary.seconds, 1e-9)
        flags = "".join(f", {count:,} {flag}" for flag, count in sorted(summary.flags.items()))
        typer.echo(
            f"{output}: {summary.records:,} records, {summary.alternatives:,} alternatives{flags}, {rate:,.1f}/s"
        )
