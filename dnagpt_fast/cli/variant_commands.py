"""The commands that score variants: variants, calibrate."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import (
    AfterBp,
    BatchTokens,
    Bed,
    ContextBp,
    Device,
    Dtype,
    GenomeFile,
    Heads,
    Model,
    Phases,
    Prefix,
    Products,
    Regions,
    Resume,
    Rule,
    Strands,
    StrideBp,
    flag,
    option,
)
from dnagpt_fast.output_files import is_stream, refuse_inputs
from dnagpt_fast.progress import counting


@prints("output", "records", "alternatives", "flags", "seconds")
def variants(
    model: Model,
    genome: GenomeFile,
    vcf: Annotated[Path, typer.Argument(metavar="VCF", help=".vcf, .vcf.gz (BGZF or gzip) or .bcf")],
    output: Annotated[
        Path,
        option("--out", ".vcf, .vcf.gz or .bcf (indexed), .tsv or .parquet; - is standard output"),
    ],
    rule: Rule = "dnagpt",
    context_bp: ContextBp = None,
    after_bp: AfterBp = None,
    stride_bp: StrideBp = None,
    strands: Strands = None,
    phases: Phases = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="of `calibrate`: adds DG_CLLR and DG_Z, free of the variant's kind"
        ),
    ] = None,
    on_mismatch: Annotated[
        str, typer.Option(help="error, or flag: keep variants that do not fit the genome, with DG_FLAG")
    ] = "error",
    overwrite_tags: Annotated[bool, flag("--overwrite-tags", "replace DG_ tags that the input has")] = False,
    resume: Resume = False,
    prefix: Prefix = "<R>",
    max_tokens: BatchTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> Report | None:
    """Score the variants of a VCF file: each alternative relative to the reference.

    If torchrun starts several processes, they share the file.

    $ dnagpt-fast variants dna_gpt6m_m genome.2bit variants.vcf -o scored.vcf.gz
    """
    import torch

    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.model.alleles import AlleleRule
    from dnagpt_fast.training.devices import pick_device
    from dnagpt_fast.training.processes import Processes
    from dnagpt_fast.variants.annotate import DAYS_TO_WAIT, Annotation, annotate

    processes = Processes.from_environment()
    place = pick_device(device, processes.local_rank, what="--device")
    opened, tokenizer = open_model(model, str(place), dtype, num_heads, products)
    settings = AlleleRule.of(
        opened, tokenizer, rule, strands=strands, phases=phases, context_bp=context_bp, after_bp=after_bp,
        stride_bp=stride_bp, prefix=prefix,
    )  # fmt: skip
    what = Annotation(
        vcf,
        str(output),
        on_mismatch,
        overwrite_tags,
        resume,
        max_tokens,
        " ".join(["dnagpt-fast", *sys.argv[1:]]),
        calibrate,
    )
    with (
        Genome.open(genome) as opened_genome,
        processes.joined(torch.device(place), DAYS_TO_WAIT * 86_400),
    ):
        summary = annotate(opened, tokenizer, opened_genome, settings, what, processes=processes)
    if not processes.is_main:
        return None
    rate = summary.alternatives / max(summary.seconds, 1e-9)
    flags = "".join(f", {count:,} {flag}" for flag, count in sorted(summary.flags.items()))
    return Report(
        f"{output}: {summary.records:,} records, {summary.alternatives:,} alternatives{flags}, {rate:,.1f}/s",
        {
            "output": output, "records": summary.records, "alternatives": summary.alternatives,
            "flags": dict(summary.flags), "seconds": round(summary.seconds, 3),
        },
        output=output,
    )  # fmt: skip


@prints("output", "variants", "classes", "few")
def calibrate(
    model: Model,
    genome: GenomeFile,
    output: Annotated[Path, option("--out", "table for variants --calibrate, .json")],
    sites: Annotated[int, typer.Option(help="single-base sites, three substitutions each")] = 10_000,
    indels: Annotated[int, typer.Option(help="insertions, and deletions, of each length class")] = 200,
    seed: Annotated[int, option("--seed", "; same seed, same variants")] = 0,
    region: Regions = None,
    bed: Bed = None,
    rule: Rule = "dnagpt",
    context_bp: ContextBp = None,
    after_bp: AfterBp = None,
    stride_bp: StrideBp = None,
    strands: Strands = None,
    phases: Phases = None,
    prefix: Prefix = "<R>",
    max_tokens: BatchTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
    resume: Resume = False,
) -> Report:
    """Score random variants of a genome: what a score owes to the kind of variant alone, for `variants --calibrate`.

    They are drawn from the whole genome, or from --region and --bed, such as sequence that is held to be neutral.
    While it runs, its scores are in .<output>.scores beside the output; --resume continues from them.

    $ dnagpt-fast calibrate dna_gpt6m_m genome.2bit -o neutral.json
    """
    from dnagpt_fast.cli.sequence_jobs import identity, open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.model.alleles import AlleleRule
    from dnagpt_fast.training.job_folder import JobFolder
    from dnagpt_fast.training.row_journal import row_journal
    from dnagpt_fast.variants import calibration, neutral

    if resume and is_stream(output):
        raise typer.BadParameter("wanted with -o FILE", param_hint="--resume")
    refuse_inputs(output, model, genome, bed)
    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    settings = AlleleRule.of(
        opened, tokenizer, rule, strands=strands, phases=phases, context_bp=context_bp, after_bp=after_bp,
        stride_bp=stride_bp, prefix=prefix,
    )  # fmt: skip
    drawn = {"sites": sites, "indels": indels, "seed": seed}
    wanted = neutral.variants_drawn(sites, indels)
    with Genome.open(genome) as source:
        places = places_of(source, region or (), bed)
        job = {
            **identity(opened, tokenizer, source, places, drawn),
            **calibration.identity(opened, source, settings),
        }
        with (
            contextlib.nullcontext()
            if is_stream(output)
            else row_journal(JobFolder(output, "scores"), job, (1,), "<f8", resume=resume) as journal,
            counting(wanted, "variant", "variants/s") as progress,
        ):
            found = neutral.calibrate(
                opened, tokenizer, source, places, settings, **drawn, max_tokens=max_tokens, finished=journal,
                progress=progress,
            )  # fmt: skip
            found.write(output)
    few = sum(spread.count < calibration.LEAST for spread in found.classes.values())
    return Report(
        f"{output}: {wanted:,} random variants, {len(found.classes)} classes and kinds, {few} with under "
        f"{calibration.LEAST} examples",
        {"output": output, "variants": wanted, "classes": len(found.classes), "few": few},
        output=output,
    )
