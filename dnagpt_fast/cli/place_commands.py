"""The commands that look at single bases and tokens of a place: track, mutate, attribute, attention."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import (
    AfterBp,
    BatchTokens,
    Bed,
    BothStrands,
    ContextBp,
    Device,
    Dtype,
    GenomeFile,
    Heads,
    Label,
    Model,
    Number,
    Phases,
    Prefix,
    Products,
    Regions,
    Strand,
    option,
)
from dnagpt_fast.output_files import refuse_inputs, whole
from dnagpt_fast.progress import counting, working

if TYPE_CHECKING:
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import Place


@prints("output", "bases", "seconds", "plot")
def track(
    model: Model,
    genome: GenomeFile,
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
) -> Report:
    """Write the model's predictions at every base as BigWig tracks: log-likelihood, entropy, P(A), P(C), P(G), P(T).

    $ dnagpt-fast track dna_gpt6m_m genome.2bit --region one:0-600 -o tracks
    """
    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.model.base_tracks import BaseTracks
    from dnagpt_fast.model.inference import Inference
    from dnagpt_fast.tracks.bigwig import KINDS, merged, write_tracks
    from dnagpt_fast.tracks.track_plot import check_track_figure, plot_tracks

    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    tracks = BaseTracks(Inference(opened), tokenizer, prefix=prefix, overlap=overlap, max_tokens=max_tokens)
    with Genome.open(genome) as source:
        places = places_of(source, region or (), bed)
        if figure is not None:
            refuse_inputs(figure, genome)
            check_track_figure(figure, list(islice(places, 2)))
        ranges = merged((source.contigs.find(place.contig), place.start_bp, place.end_bp) for place in places)
        with counting(sum(end - start for _, start, end in ranges), "base", "bp/s") as progress:
            summary = write_tracks(
                tracks, source, ranges, output, kinds=values or KINDS, both_strands=both_strands, name=name,
                progress=progress,
            )  # fmt: skip
        if figure is not None:
            plot_tracks(figure, output, next(iter(places)))
    rate = summary.bases / max(summary.seconds, 1e-9)
    drawn = f", drawn in {figure}" if figure else ""
    return Report(
        f"{output}: {summary.bases:,} bases, {rate:,.0f} bp/s{drawn}",
        {"output": output, "bases": summary.bases, "seconds": round(summary.seconds, 3), "plot": figure},
    )


@prints("output", "region", "substitutions", "plot")
def mutate(
    model: Model,
    genome: GenomeFile,
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
) -> Report:
    """Saturation mutagenesis: score every single-base substitution of a region; table, logo and heat map.

    MODEL may be the folder of a fine-tuning run: the region is then one sequence for it, as `predict` reads it, and the
    score is the difference that a substitution makes to its answer.

    $ dnagpt-fast mutate dna_gpt6m_m genome.2bit one:500-560 -o map.tsv
    """
    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.finetune.answer import Answer
    from dnagpt_fast.finetune.predict import is_finetuned
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.tracks import mutate as maps
    from dnagpt_fast.tracks.place_maps import check_figure

    _check_strand(strand)
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
        with working(f"loading {model}"):
            answer = Answer(model, label=label, numbers=number or (), device=device or "auto")
    else:
        opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    with Genome.open(genome) as source:
        place = _place_of(source, region, strand)
        length = place.end_bp - place.start_bp
        with counting(length, "base", "substitutions/s", per_step=3) as progress:
            if tuned:
                found = maps.mutate_answer(answer, source, place, progress=progress)
            else:
                found = maps.mutate(
                    opened, tokenizer, source, place, score=score or "llr", progress=progress, context_bp=context_bp,
                    after_bp=after_bp, phases=1 if score == "conditional" else phases, prefix=prefix,
                    max_tokens=max_tokens, rule="dnagpt",
                )  # fmt: skip
    with _drawn(figure, partial(maps.plot, found=found)):
        maps.write_table(output, found)
    return Report(
        f"{output}: {3 * length:,} substitutions of {place.name}"
        + (f", drawn in {figure}" if figure else ""),
        {"output": output, "region": place.name, "substitutions": 3 * length, "plot": figure},
        output=output,
    )


@prints("output", "region", "answer_name", "answer", "baseline", "gap", "plot")
def attribute(
    run: Annotated[Path, typer.Argument(help="folder of a fine-tuning run (classification or regression)")],
    genome: GenomeFile,
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
) -> Report:
    """Attribute a fine-tuned model's answer for a region to its bases; table and sequence logo.

    $ dnagpt-fast attribute tuned genome.2bit one:100-110 -o bases.tsv
    """
    from dnagpt_fast.finetune.answer import Answer
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.tracks import attribution
    from dnagpt_fast.tracks.place_maps import check_figure

    _check_strand(strand)
    if figure is not None:
        check_figure(figure)
    for path in (output, figure):
        refuse_inputs(path, genome)
    with working(f"loading {run}"):
        answer = Answer(run, label=label, numbers=number or (), device=device or "auto")
    with Genome.open(genome) as source:
        place = _place_of(source, region, strand)
        with counting(attribution.points(method, steps), "point", "points/s") as progress:
            found = attribution.attribute(
                answer, source, place, method=method, steps=steps, progress=progress
            )
    with _drawn(figure, partial(attribution.plot, found=found)):
        attribution.write_table(output, found)
    line = f"{output}: {answer.name} is {found.answer:.4g} for {place.name}"
    if found.baseline is not None:
        line += (
            f", {found.baseline:.4g} at the baseline; the attributions miss the difference by {found.gap:.2g}"
        )
    return Report(
        line + (f"; drawn in {figure}" if figure else ""),
        {
            "output": output, "region": place.name, "answer_name": answer.name, "answer": float(found.answer),
            "baseline": None if found.baseline is None else float(found.baseline),
            "gap": None if found.gap is None else float(found.gap), "plot": figure,
        },
        output=output,
    )  # fmt: skip


@prints("output", "region", "tokens", "layers", "heads")
def attention(
    model: Model,
    genome: GenomeFile,
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
) -> Report:
    """Show which tokens of a region attend to which: a heat map with genome coordinates, or all weights as an array.

    $ dnagpt-fast attention dna_gpt6m_m genome.2bit one:500-620 -o attention.svg
    """
    from dnagpt_fast.cli.sequence_jobs import open_model
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.plot_style import check_ending
    from dnagpt_fast.tracks import attention_map as maps

    _check_strand(strand)
    check_ending(output, maps.ENDINGS)
    as_numbers = output.suffix == ".npz"
    if as_numbers and head is not None:
        raise typer.BadParameter("is for figures: an .npz file has all heads", param_hint="--head")
    refuse_inputs(output, model, genome)
    opened, tokenizer = open_model(model, device, dtype, num_heads, products)
    with Genome.open(genome) as source:
        place = _place_of(source, region, strand)
        wanted = layer if layer is not None or as_numbers else -1
        with working(f"attention of {place.name}"):
            found = maps.attention_of_place(opened, tokenizer, source, place, layer=wanted, prefix=prefix)
            if as_numbers:
                maps.write_arrays(output, found, place)
            else:
                maps.plot(output, found, place, head)
    layers, heads, tokens, _ = found.weights.shape
    return Report(
        f"{output}: {place.name}, {tokens} tokens, {layers} layer(s), {heads} heads",
        {"output": output, "region": place.name, "tokens": tokens, "layers": layers, "heads": heads},
        output=output,
    )


def _check_strand(strand: str) -> None:
    if strand not in ("+", "-"):
        raise typer.BadParameter("wanted + or -", param_hint="--strand")


def _place_of(genome: "Genome", region: str, strand: str) -> "Place":
    """The one region of a map, in the direction in which it is read and shown."""
    from dnagpt_fast.genome.selection import places_of

    return next(iter(places_of(genome, [region])))._replace(strand=strand)


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
