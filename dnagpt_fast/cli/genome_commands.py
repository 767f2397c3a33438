"""The commands that read genomes: pack, info, extract, make-task."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import Bed, GenomeFile, Regions, flag, option
from dnagpt_fast.output_files import refuse_inputs
from dnagpt_fast.progress import working

if TYPE_CHECKING:
    from dnagpt_fast.genome.inventory import Counts
    from dnagpt_fast.genome.selection import Place


@prints("output", "contigs", "bases", "file_bytes", "seconds")
def pack(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FASTA... TWOBIT", help="FASTA in (plain, gzip, BGZF; - is standard input); .2bit out"
        ),
    ],
    output: Annotated[Path | None, option("--out", ".2bit; then every argument is a FASTA")] = None,
    contig: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="only the contig of this name; repeat for more")
    ] = None,
) -> Report:
    """Pack FASTA files into one UCSC .2bit file.

    $ dnagpt-fast pack genome.fa genome.2bit
    $ gunzip -c genome.fa.gz | dnagpt-fast pack - genome.2bit
    """
    from dnagpt_fast.genome.pack import pack_fasta

    if output is None:
        if len(files) < 2:
            raise typer.BadParameter(
                "wanted one FASTA file or more, then the .2bit file to write", param_hint="FILES"
            )
        *files, output = files
    began = time.monotonic()
    written = pack_fasta(files, output, contigs=contig or ())
    seconds = time.monotonic() - began
    return Report(
        f"{output}: {written.contigs:,} contigs, {written.bases:,} bp in {written.file_bytes:,} bytes, {seconds:.1f} s",
        {
            "output": output, "contigs": written.contigs, "bases": written.bases, "file_bytes": written.file_bytes,
            "seconds": round(seconds, 3),
        },
        output=output,
    )  # fmt: skip


@prints(
    "name", "contig", "start_bp", "end_bp", "strand", "length_bp", "n_bp", "n_blocks", "masked_bp", "gc_bp", "gc"
)  # fmt: skip
def info(genome: GenomeFile, region: Regions = None, bed: Bed = None) -> Report:
    """Count the bases of contigs, or of ranges: length, N, soft mask, GC.

    Without --region and --bed every contig is a row. The last row is the sum; what is in two ranges counts twice there.

    $ dnagpt-fast info genome.2bit
    $ dnagpt-fast info genome.2bit --region one:100-400 --region one
    $ dnagpt-fast info genome.fa --bed peaks.bed --json
    """
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.inventory import contig_counts, place_counts
    from dnagpt_fast.genome.selection import places_of

    with Genome.open(genome) as opened:
        ranges = bool(region) or bed is not None
        rows = list(
            place_counts(opened, places_of(opened, region or (), bed)) if ranges else contig_counts(opened)
        )
    objects = ({**place._asdict(), **counts.as_dict()} for place, counts in rows)
    return Report(_counts_table(rows, "range" if ranges else "contig"), objects, is_result=True)


def _counts_table(rows: "list[tuple[Place, Counts]]", head: str) -> Iterator[str]:
    """Lines: the heads, the rows, and their sum. The ranges are beside names that are something else."""
    from dnagpt_fast.genome.inventory import total
    from dnagpt_fast.genome.selection import range_name

    titles: list[tuple[str, ...]] = [(place.name,) for place, _ in rows]
    heads: tuple[str, ...] = (head,)
    if head == "range":
        where = [range_name(place.contig, place.start_bp, place.end_bp, place.strand) for place, _ in rows]
        if where != [name for (name,) in titles]:
            titles, heads = list(zip([place.name for place, _ in rows], where, strict=True)), ("name", head)
    sums = total(counts for _, counts in rows)
    columns = ("length_bp", "N_bp", "N_blocks", "masked_bp")
    wide = [max(len(name), len(f"{getattr(sums, name.lower()):,}")) for name in columns]
    first = [max(map(len, column)) for column in zip(heads, ("total",) * len(heads), *titles, strict=True)]

    def line(title: tuple[str, ...], numbers: list[str], gc: str) -> str:
        left = [f"{text:{width}}" for text, width in zip(title, first, strict=True)]
        right = [f"{text:>{width}}" for text, width in zip(numbers, wide, strict=True)]
        return "  ".join([*left, *right, f"{gc:>6}"])

    def numbers(counts: "Counts") -> tuple[list[str], str]:
        shown = [f"{getattr(counts, name.lower()):,}" for name in columns]
        return shown, "-" if counts.gc is None else f"{counts.gc:.4f}"

    yield line(heads, list(columns), "GC")
    for title, (_, counts) in zip(titles, rows, strict=True):
        yield line(title, *numbers(counts))
    if len(rows) > 1:
        yield line(("total", *("" for _ in heads[1:])), *numbers(sums))


@prints("output", "sequences", "bases")
def extract(
    genome: GenomeFile,
    output: Annotated[Path | None, option("--out", "FASTA; default standard output")] = None,
    region: Regions = None,
    bed: Bed = None,
    upper: Annotated[bool, flag("--upper", "write soft-masked bases in upper case too")] = False,
) -> Report | None:
    """Write ranges, the intervals of a BED file, or all contigs of a genome as FASTA, on their strand.

    The soft mask is kept as lower case, so that a .2bit becomes the FASTA that it was packed from.

    $ dnagpt-fast extract genome.2bit --region one:100-160
    $ dnagpt-fast extract genome.2bit --bed peaks.bed -o peaks.fa
    """
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.extract import Extracted, fasta_blocks
    from dnagpt_fast.genome.selection import places_of
    from dnagpt_fast.output_files import TextFile

    refuse_inputs(output, genome, bed)
    counted = [Extracted(0, 0)]
    with Genome.open(genome) as opened:
        blocks = fasta_blocks(opened, places_of(opened, region or (), bed), counted, soft_mask=not upper)
        if output is None:
            for block in blocks:
                sys.stdout.write(block + "\n")
            sys.stdout.flush()
            return None
        with TextFile(output) as file:
            for block in blocks:
                file.write(block)
    records, bases = counted[-1]
    values = {"output": output, "sequences": records, "bases": bases}
    return Report(f"{output}: {records:,} records, {bases:,} bp", values, output=output)


@prints("output", "settings", "genome", "rows", "labels", "left_out", "sha256")
def make_task(
    kind: Annotated[str, typer.Argument(help="tis, pas, splice, splice-donor or splice-acceptor")],
    genome: Annotated[Path, option("--genome")],
    annotation: Annotated[Path, option("--annotation")],
    output: Annotated[Path, option("--out", "table, .tsv or .csv")],
    window_bp: Annotated[int, option("--window-bp", " around the motif, half on each side")] = 600,
    keep_motif: Annotated[bool, flag("--keep-motif", "keep the motif in the sequence")] = False,
    negatives: Annotated[float, typer.Option(help="hard negatives for each positive")] = 1.0,
    within_genes: Annotated[
        bool, flag("--within-genes", "negatives only from inside transcripts, on their strand")
    ] = False,
    block_bp: Annotated[int, typer.Option(help="block size of the split by chromosome block")] = 1_000_000,
    shares: Annotated[tuple[float, float, float], typer.Option(help="of training, validation and test")] = (
        0.7,
        0.1,
        0.2,
    ),
    max_n_share: Annotated[float, typer.Option(help="windows with more N are left out")] = 0.05,
    seed: Annotated[int, option("--seed", "negatives and split")] = 0,
) -> Report:
    """Cut labelled windows for fine-tuning out of a genome and its annotation.

    $ dnagpt-fast make-task tis --genome genes.fa --annotation genes.txt -o x.tsv
    """
    from dnagpt_fast.finetune.data.annotation import read_annotation
    from dnagpt_fast.finetune.data.sites import TaskSettings
    from dnagpt_fast.finetune.data.sites import make_task as cut
    from dnagpt_fast.genome import Genome

    refuse_inputs(output, genome, annotation)
    settings = TaskSettings(
        kind, window_bp, keep_motif, negatives, within_genes, max_n_share, shares, block_bp, seed
    )
    with Genome.open(genome) as opened:
        transcripts = read_annotation(annotation)
        with working("cutting windows"):
            summary = cut(opened, transcripts, settings, output)
    return Report(json.dumps(summary, indent=2), {"output": output, **summary}, output=output)
