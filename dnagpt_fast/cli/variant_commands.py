"""The commands that score a genome base by base: variants, calibrate, track, mutate, attribute, attention."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.options import (
    AfterBp,
    BatchTokens,
    Bed,
    BothStrands,
    ContextBp,
    Device,
    Dtype,
    Heads,
    Label,
    Model,
    Number,
    Phases,
    Prefix,
    Products,
    Regions,
    Resume,
    Rule,
    Source,
    Strand,
    Strands,
    StrideBp,
    flag,
    option,
)
from dnagpt_fast.output_files import is_stream, refuse_inputs, whole


def variants(
    model: Model,
    genome: Source,
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
) -> None:
    """Score the variants of a VCF file: each alternative relative to the reference.

    If torchrun starts several processes, they share the file.
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
    if processes.is_main:
        rate = summary.alternatives / max(summary.seconds, 1e-9)
        flags = "".join(f", {count:,} {flag}" for flag, count in sorted(summary.flags.items()))
        typer.echo(
            f"{output}: {summary.records:,} records, {summary.alternatives:,} alternatives{flags}, {rate:,.1f}/s",
            err=is_stream(output),
        )


def calibrate(
    model: Model,
    genome: Source,
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
) -> None:
    """Score random variants of a genome: what a score owes to the kind of variant alone, for `variants --calibrate`.

    They are drawn from the whole genome, or from --region and --bed, such as sequence that is held to be neutral.
    While it runs, its scores are in .<output>.scores beside the output; --resume continues from them.
    """
    from rich.console import Console

    from dnagpt_fast.cli.sequence_jobs import identity, open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.model.alleles import AlleleRule
    from dnagpt_fast.output_files import refuse_inputs
    from dnagpt_fast.training.job_folder import JobFolder
    from dnagpt_fast.training.progress import TrainingProgress
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
        began, done = time.monotonic(), 0
        with (
            contextlib.nullcontext()
            if is_stream(output)
            else row_journal(JobFolder(output, "scores"), job, (1,), "<f8", resume=resume) as journal,
            TrainingProgress(Console(stderr=True), 0, wanted, unit="variant") as progress,
        ):

            def report(more: int) -> None:
                nonlocal done
                done += more
                progress.update(done, f"{done / max(time.monotonic() - began, 1e-9):,.1f}/s")

            found = neutral.calibrate(
                opened, tokenizer, source, places, settings, **drawn, max_tokens=max_tokens, finished=journal,
                progress=report,
            )  # fmt: skip
            found.write(output)
    few = sum(spread.count < calibration.LEAST for spread in found.classes.values())
    typer.echo(
        f"{output}: {done:,} random variants, {len(found.classes)} classes and kinds, {few} with under "
        f"{calibration.LEAST} examples"
    )


def track(
    model: Model,
    genome: Source,
    output: Annotated[Path, option("--out", "folder to make, with BigWig files and hub.txt")],
    region: Regions = None,
    bed: Bed = None,
    values: Annotated[
        list[str] | None,
        typer.Option(help="log_likelihood, entropy or bases; repeat for more; default all"),
    ] = None,
    both_strands: BothStrands = False,
    figure: Annotated[Path | None, option("--plot", "the tracks of one range")] = None,
    name: Annotated[str, typer.Option(help="the browser's name of the genome, such as hg19")] = "hg38",
    prefix: Prefix = "<R>",
    overlap: Annotated[int | None, option("--overlap", "; default half a window")] = None,
    max_tokens: BatchTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> None:
    """Write the model's predictions at every base as BigWig tracks: log-likelihood, entropy, P(A), P(C), P(G), P(T)."""
    from rich.console import Console

    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.model.base_tracks import BaseTracks
    from dnagpt_fast.model.inference import Inference
    from dnagpt_fast.output_files import refuse_inputs
    from dnagpt_fast.tracks.bigwig import KINDS, PIECE_BP, merged, write_tracks
    from dnagpt_fast.tracks.track_plot import check_track_figure, plot_tracks
    from dnagpt_fast.training.progress import TrainingProgress

    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    tracks = BaseTracks(Inference(opened), tokenizer, prefix=prefix, overlap=overlap, max_tokens=max_tokens)
    with Genome.open(genome) as source:
        places = places_of(source, region or (), bed)
        if figure is not None:
            refuse_inputs(figure, genome)
            check_track_figure(figure, list(islice(places, 2)))
        ranges = merged((source.contigs.find(place.contig), place.start_bp, place.end_bp) for place in places)
        total = sum(-(-(end - start) // PIECE_BP) for _, start, end in ranges)
        began, done, bases = time.monotonic(), 0, 0
        with TrainingProgress(Console(stderr=True), 0, total, unit="piece") as progress:

            def report(more: int) -> None:
                nonlocal done, bases
                done, bases = done + 1, bases + more
                progress.update(done, f"{bases / max(time.monotonic() - began, 1e-9):,.0f} bp/s")

            summary = write_tracks(
                tracks, source, ranges, output, kinds=values or KINDS, both_strands=both_strands, name=name,
                progress=report,
            )  # fmt: skip
        if figure is not None:
            plot_tracks(figure, output, next(iter(places)))
    rate = summary.bases / max(summary.seconds, 1e-9)
    drawn = f", drawn in {figure}" if figure else ""
    typer.echo(f"{output}: {summary.bases:,} bases, {rate:,.0f} bp/s{drawn}")


def mutate(
    model: Model,
    genome: Source,
    region: Annotated[str, typer.Argument(help="CONTIG:START-END, 0-based and half-open")],
    output: Annotated[Path, option("--out", "table, .tsv")],
    figure: Annotated[Path | None, option("--plot", "logo and heat map")] = None,
    score: Annotated[
        str,
        typer.Option(
            help="llr; conditional: given only the bases before (fast). For a fine-tuned model only difference: "
            "of its answers"
        ),
    ] = "",
    label: Label = None,
    number: Number = None,
    strand: Strand = "+",
    context_bp: ContextBp = None,
    after_bp: AfterBp = None,
    phases: Phases = None,
    prefix: Prefix = "<R>",
    max_tokens: BatchTokens = 4096,
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> None:
    """Saturation mutagenesis: score every single-base substitution of a region; table, logo and heat map.

    MODEL may be the folder of a fine-tuning run: the region is then one sequence for it, as `predict` reads it, and the
    score is the difference that a substitution makes to its answer.
    """
    from rich.console import Console

    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.finetune.answer import Answer
    from dnagpt_fast.finetune.predict import is_finetuned
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.tracks import mutate as maps
    from dnagpt_fast.tracks.place_maps import check_figure
    from dnagpt_fast.training.progress import TrainingProgress

    if strand not in ("+", "-"):
        raise typer.BadParameter("wanted + or -", param_hint="--strand")
    if figure is not None:
        check_figure(figure)
    for path in (output, figure):
        refuse_inputs(path, model, genome)
    tuned = is_finetuned(model)
    if score == "difference" and not tuned:
        raise typer.BadParameter(f"{model} is no fine-tuning run", param_hint="--score")
    if tuned and score not in ("", "difference"):
        raise typer.BadParameter(f"{model} is a fine-tuning run: wanted difference", param_hint="--score")
    if not tuned and (label is not None or number):
        raise typer.BadParameter(
            f"{model} is no fine-tuning run", param_hint="--label" if label else "--number"
        )
    if tuned:
        _refuse_pretrained_options(
            context_bp=context_bp, after_bp=after_bp, phases=phases, dtype=dtype,
            products=None if products == "float32" else products,
        )  # fmt: skip
        answer = Answer(model, label=label, numbers=number or (), device=device or "auto")
    else:
        opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    with Genome.open(genome) as source:
        place = next(iter(places_of(source, [region])))._replace(strand=strand)
        done, length = 0, place.end_bp - place.start_bp
        with TrainingProgress(Console(stderr=True), 0, length, unit="base") as progress:

            def report(more: int) -> None:
                nonlocal done
                done += more
                progress.update(done, f"{3 * done:,} substitutions")

            if tuned:
                found = maps.mutate_answer(answer, source, place, progress=report)
            else:
                found = maps.mutate(
                    opened, tokenizer, source, place, score=score or "llr", progress=report, context_bp=context_bp,
                    after_bp=after_bp, phases=1 if score == "conditional" else phases, prefix=prefix,
                    max_tokens=max_tokens, rule="dnagpt",
                )  # fmt: skip
    with _drawn(figure, partial(maps.plot, found=found)):
        maps.write_table(output, found)
    typer.echo(
        f"{output}: {3 * length:,} substitutions of {place.name}"
        + (f", drawn in {figure}" if figure else ""),
        err=is_stream(output),
    )


def attribute(
    run: Annotated[Path, typer.Argument(help="folder of a fine-tuning run (classification or regression)")],
    genome: Source,
    region: Annotated[
        str, typer.Argument(help="CONTIG:START-END, 0-based and half-open: one sequence for the model")
    ],
    output: Annotated[Path, option("--out", "table, .tsv")],
    figure: Annotated[Path | None, option("--plot", "sequence logo")] = None,
    method: Annotated[str, typer.Option(help="integrated (gradients) or gradient")] = "integrated",
    steps: Annotated[int, typer.Option(help="points of the line for integrated gradients")] = 64,
    strand: Strand = "+",
    label: Label = None,
    number: Number = None,
    device: Device = None,
) -> None:
    """Attribute a fine-tuned model's answer for a region to its bases; table and sequence logo."""
    from dnagpt_fast.finetune.answer import Answer
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.tracks import attribution
    from dnagpt_fast.tracks.place_maps import check_figure

    if strand not in ("+", "-"):
        raise typer.BadParameter("wanted + or -", param_hint="--strand")
    if figure is not None:
        check_figure(figure)
    for path in (output, figure):
        refuse_inputs(path, genome)
    answer = Answer(run, label=label, numbers=number or (), device=device or "auto")
    with Genome.open(genome) as source:
        place = next(iter(places_of(source, [region])))._replace(strand=strand)
        found = attribution.attribute(answer, source, place, method=method, steps=steps)
    with _drawn(figure, partial(attribution.plot, found=found)):
        attribution.write_table(output, found)
    line = f"{output}: {answer.name} is {found.answer:.4g} for {place.name}"
    if found.baseline is not None:
        line += (
            f", {found.baseline:.4g} at the baseline; the attributions miss the difference by {found.gap:.2g}"
        )
    typer.echo(line + (f"; drawn in {figure}" if figure else ""), err=is_stream(output))


def attention(
    model: Model,
    genome: Source,
    region: Annotated[
        str, typer.Argument(help="CONTIG or CONTIG:START-END, 0-based and half-open; one window of the model")
    ],
    output: Annotated[Path, option("--out", "heat map, .pdf, .svg or .png; or .npz with the numbers")],
    layer: Annotated[int | None, option("--layer", ", the default of a figure; default of .npz: all")] = None,
    head: Annotated[
        int | None, typer.Option(help="0, 1 ...; default the mean of all heads; .npz: all")
    ] = None,
    strand: Strand = "+",
    prefix: Prefix = "<R>",
    device: Device = None,
    dtype: Dtype = None,
    products: Products = "float32",
    num_heads: Heads = None,
) -> None:
    """Show which tokens of a region attend to which: a heat map with genome coordinates, or all weights as an array."""
    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.plot_style import check_ending
    from dnagpt_fast.tracks import attention_map as maps

    if strand not in ("+", "-"):
        raise typer.BadParameter("wanted + or -", param_hint="--strand")
    check_ending(output, maps.ENDINGS)
    as_numbers = output.suffix == ".npz"
    if as_numbers and head is not None:
        raise typer.BadParameter("is for figures: an .npz file has all heads", param_hint="--head")
    refuse_inputs(output, model, genome)
    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    with Genome.open(genome) as source:
        place = next(iter(places_of(source, [region])))._replace(strand=strand)
        wanted = layer if layer is not None or as_numbers else -1
        found = maps.attention_of_place(opened, tokenizer, source, place, layer=wanted, prefix=prefix)
    if as_numbers:
        maps.write_arrays(output, found, place)
    else:
        maps.plot(output, found, place, head)
    layers, heads, tokens, _ = found.weights.shape
    typer.echo(
        f"{output}: {place.name}, {tokens} tokens, {layers} layer(s), {heads} heads", err=is_stream(output)
    )


def _refuse_pretrained_options(**given: object) -> None:
    """Options that only mean something for a pre-trained model."""
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter("is for pre-trained models", param_hint=f"--{name.replace('_', '-')}")


@contextlib.contextmanager
def _drawn(figure: Path | None, plot: Callable[[Path], None]) -> Iterator[None]:
    """Draws a figure, which gets its name when the block has written the table: both files or none."""
    if figure is None:
        yield
        return
    with whole(figure) as temporary:
        plot(temporary)
        yield
