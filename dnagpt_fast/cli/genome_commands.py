"""The commands that read genomes: pack, info, extract, make-task."""

import json
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import Bed, GenomeFile, Regions, flag, option
from dnagpt_fast.output_files import refuse_inputs
from dnagpt_fast.progress import working


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


@prints("name", "length_bp", "n_bp", "n_blocks", "masked_bp", "gc_bp", "gc")
def info(genome: GenomeFile) -> Report:
    """List the contigs of a genome: length, N, soft mask, GC.

    With --json one object for each contig.

    $ dnagpt-fast info genome.2bit
    $ dnagpt-fast info genome.fa --json
    """
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.genome.inventory import contig_rows, total_row

    with Genome.open(genome) as opened:
        rows = list(contig_rows(opened))
    shown = [*rows, total_row(rows)] if len(rows) > 1 else rows
    width = max(len(name) for name in ("contig", *(row.name for row in shown)))
    head = f"{'contig':{width}} {'length_bp':>15} {'N_bp':>13} {'N_blocks':>9} {'masked_bp':>15} {'GC':>7}"
    table = (
        f"{row.name:{width}} {row.length_bp:>15,} {row.n_bp:>13,} {row.n_blocks:>9,} {row.masked_bp:>15,} "
        f"{'-' if row.gc is None else f'{row.gc:.4f}':>7}"
        for row in shown
    )
    return Report(chain([head], table), (row.as_dict() for row in rows), is_result=True)


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
