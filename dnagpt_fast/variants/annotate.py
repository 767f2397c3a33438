"""Adds scores to a VCF file: the whole file is checked first, then scored block by block and written at the end."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnagpt_fast.extras import need
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.regions import RegionError
from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.model.alleles import AlleleRule, AlleleScore
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.output_files import TextFile, is_stream, refuse_inputs, whole
from dnagpt_fast.progress import Progress, standard_error
from dnagpt_fast.training.job_folder import JobFolder
from dnagpt_fast.training.processes import Processes
from dnagpt_fast.training.run_folder import versions
from dnagpt_fast.variants.calibration import Calibration, identity
from dnagpt_fast.variants.journal import Journal
from dnagpt_fast.variants.places import (
    FLAGS,
    Variant,
    VariantError,
    is_sequence,
    reference_flag,
    score_chunk,
)
from dnagpt_fast.variants.vcf import Record, VcfFile, ending_of, with_info, write_vcf

if TYPE_CHECKING:
    from rich.console import Console

BLOCK_RECORDS = 128
"""Records that are scored, given to a process and stored together; it does not change the scores."""
NUMBERS = {
    "DG_LLR": "log P(ALT window) - log P(REF window) in nats; negative: ALT is less likely",
    "DG_LLR_FWD": "DG_LLR of the forward strand only",
    "DG_LLR_REV": "DG_LLR of the reverse strand only",
    "DG_SD": "standard deviation of the log-ratio over strands and phases",
    "DG_COND": "log P(ALT base) - log P(REF base) given only the bases before it, mean of the strands; single bases",
}
CALIBRATED = {
    "DG_CLLR": "DG_LLR minus the mean DG_LLR of random variants of its class (trinucleotide and alternative, or length "
    "of the indel), in nats",
    "DG_Z": "DG_CLLR divided by the standard deviation of that class",
}
FLAG = "DG_FLAG"
TAGS = frozenset((*NUMBERS, *CALIBRATED, FLAG))
COMMAND = "##dnagpt_fastCommand="
DAYS_TO_WAIT = 14
"""For the slowest process; torchrun ends the others if one fails."""
TABLES = (".tsv", ".parquet")
COLUMNS = ("contig", "pos", "id", "ref", "alt", "llr", "llr_fwd", "llr_rev", "sd", "cond")
CALIBRATED_COLUMNS = ("cllr", "z")


@dataclass(frozen=True)
class Annotation:
    """How to annotate a VCF file.

    source           .vcf, .vcf.gz (BGZF or gzip) or .bcf
    output           .vcf, .vcf.gz with its index, .bcf with its index, .tsv or .parquet; a pipe, a device or `-` gets
                     plain VCF, or a table by its ending
    on_mismatch      "error", or "flag": a contig or reference that the genome does not have gets DG_FLAG, not scores
    overwrite_tags   replace DG_ tags that the input has
    calibration      a file of `dnagpt-fast calibrate`, for DG_CLLR and DG_Z
    resume           continue the unfinished job of this output
    max_tokens       tokens at once; does not change the scores
    command          the command line, for the header
    """

    source: Path
    output: str
    on_mismatch: str = "error"
    overwrite_tags: bool = False
    resume: bool = False
    max_tokens: int = 4096
    command: str = ""
    calibration: Path | None = None


@dataclass
class Summary:
    """Numbers of records and alternatives; flags: number of alternatives with each flag; seconds of scoring."""

    records: int = 0
    alternatives: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass
class _Contents:
    """What the first pass over the file found; contigs: those without a header line, with their lengths."""

    records: int = 0
    alternatives: int = 0
    is_sorted: bool = True
    contigs: dict[str, int | None] = field(default_factory=dict)


def annotate(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    genome: Genome,
    rule: AlleleRule,
    what: Annotation,
    *,
    processes: Processes | None = None,
    console: "Console | None" = None,
) -> Summary:
    """Scores every alternative of a VCF file; process 0 writes the output, completely or not at all.

    The whole file is checked before the first score. Several processes share the blocks of records: call it in all of
    them while they are connected. Raises ValueError (VariantError, JournalError) and OSError.
    """
    processes, console = processes or Processes(), console or standard_error()
    if what.on_mismatch not in ("error", "flag"):
        raise ValueError(f"on_mismatch = {what.on_mismatch!r}: wanted error or flag")
    if is_stream(what.output):
        _check_stream(what, processes)
    elif not what.output.endswith(TABLES):
        ending_of(what.output)
    refuse_inputs(what.output, what.source, genome.path, what.calibration)
    vcf = VcfFile(what.source)
    _check_tags(vcf, what)
    _check_lengths(vcf, genome)
    contents = _first_pass(vcf, genome, what)
    about, calibration = identity(model, genome, rule), None
    if what.calibration is not None:
        calibration = Calibration.read(what.calibration)
        calibration.check(what.calibration, about)
    job = {
        **about, "source": sha256_of(what.source),
        "calibration": None if calibration is None else calibration.content_hash,
        "on_mismatch": what.on_mismatch, "block_records": BLOCK_RECORDS,
    }  # fmt: skip
    with _folder_of(what.output) as folder:
        if not what.resume:
            folder.refuse_unfinished()
        # all processes have checked this before process 0 makes the folder
        processes.barrier()
        journal = Journal.open(folder, job, resume=what.resume, main=processes.is_main)
        processes.barrier()
        began = time.monotonic()
        try:
            _score_blocks(
                model, tokenizer, genome, rule, what, vcf, contents, journal, processes, console, calibration
            )
        finally:
            journal.close()
            if processes.world_size == 1 and journal.is_empty:
                journal.remove()  # nothing is lost
        processes.barrier()
        summary = Summary(contents.records, contents.alternatives, seconds=time.monotonic() - began)
        if processes.is_main:
            header = _header(vcf, contents, rule, what, job)
            _write(vcf, contents, genome, header, journal, what, summary)
            journal.remove()
        return summary


@contextmanager
def _folder_of(output: str) -> Iterator[JobFolder]:
    """Beside the output; for a stream, which cannot be resumed, a temporary one."""
    if not is_stream(output):
        yield JobFolder(Path(output), "scores")
        return
    with tempfile.TemporaryDirectory() as room:
        yield JobFolder(Path(room) / "variants", "scores")


def _check_stream(what: Annotation, processes: Processes) -> None:
    if what.output.endswith((".gz", ".bcf")):
        raise ValueError(
            f"{what.output}: a pipe or device gets plain text: wanted a name that ends in .vcf or .tsv"
        )
    if what.resume or processes.world_size > 1:
        raise ValueError(
            f"{what.output}: --resume and several processes keep scores beside the output: wanted a file"
        )


def _score_blocks(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    genome: Genome,
    rule: AlleleRule,
    what: Annotation,
    vcf: VcfFile,
    contents: _Contents,
    journal: Journal,
    processes: Processes,
    console: "Console",
    calibration: Calibration | None,
) -> None:
    inference = Inference(model)
    blocks = -(-contents.records // BLOCK_RECORDS)
    mine = range(processes.rank, blocks, processes.world_size)
    sizes = {block: min(BLOCK_RECORDS, contents.records - block * BLOCK_RECORDS) for block in mine}
    before = sum(size for block, size in sizes.items() if block in journal.done)
    began, scored, finished = time.monotonic(), 0, before
    quiet = console if processes.is_main else standard_error(main=False)
    with Progress(quiet, before, sum(sizes.values()), unit="record", at_once=False) as progress:

        def show(share: float, records: int = 0, variants: int = 0) -> None:
            """The finished blocks, and a share of the records and variants of the one at work, whose end is shown when
            its scores are kept."""
            if share == 1:
                return
            rate = (scored + share * variants) * processes.world_size / max(time.monotonic() - began, 1e-9)
            progress.update(finished + int(share * records), f"{rate:,.1f} variants/s")

        for block, records in enumerate(_blocks(vcf)):
            if block % processes.world_size != processes.rank or block in journal.done:
                continue
            variants = [
                Variant(record.contig, record.start_bp, record.reference, alternative)
                for record in records
                for alternative in record.alternatives
            ]
            flags = [
                flag
                for record in records
                for flag in [_reference_flag(vcf, record, genome, what)] * len(record.alternatives)
            ]
            found = iter(
                score_chunk(
                    inference, tokenizer, genome, variants, flags, rule, what.max_tokens, calibration,
                    partial(show, records=len(records), variants=len(variants)),
                )
            )  # fmt: skip
            scores = [list(islice(found, len(record.alternatives))) for record in records]
            journal.append(processes.rank, block, scores)
            scored, finished = scored + len(variants), finished + len(records)
            show(0)


def _blocks(vcf: VcfFile) -> Iterator[list[Record]]:
    records = vcf.records()
    while block := list(islice(records, BLOCK_RECORDS)):
        yield block


def _reference_flag(vcf: VcfFile, record: Record, genome: Genome, what: Annotation) -> str | None:
    """As places.reference_flag, but None if no alternative is a sequence: a record of `<DEL>` alone is not checked."""
    if not any(map(is_sequence, record.alternatives)):
        return None
    where = vcf.where(record)
    return reference_flag(
        genome, record.contig, record.start_bp, record.reference, where, flag=what.on_mismatch == "flag"
    )


def _first_pass(vcf: VcfFile, genome: Genome, what: Annotation) -> _Contents:
    contents, last, closed = _Contents(), ("", -2), set()
    for record in vcf.records():
        contents.records += 1
        contents.alternatives += len(record.alternatives)
        _reference_flag(vcf, record, genome, what)
        if record.contig != last[0]:
            contents.is_sorted &= record.contig not in closed
            closed.add(record.contig)
            if record.contig not in vcf.contigs:
                contents.contigs[record.contig] = _length(genome, record.contig)
        elif record.start_bp < last[1]:
            contents.is_sorted = False
        last = record.contig, record.start_bp
    return contents


def _length(genome: Genome, contig: str) -> int | None:
    try:
        return int(genome.lengths[genome.contigs.find(contig)])
    except RegionError:
        return None


def _check_lengths(vcf: VcfFile, genome: Genome) -> None:
    for contig, length in vcf.contigs.items():
        found = _length(genome, contig)
        if length is not None and found is not None and length != found:
            raise VariantError(
                f"{vcf.path}: {contig} has {length:,} bp in its header, but {found:,} bp in {genome.path}: wanted the "
                f"same assembly"
            )


def _check_tags(vcf: VcfFile, what: Annotation) -> None:
    there = sorted(
        name for name in TAGS if any(line.startswith(f"##INFO=<ID={name},") for line in vcf.header)
    )
    if there and not what.overwrite_tags:
        raise VariantError(
            f"{vcf.path} has the tag(s) {', '.join(there)} already: replace them with --overwrite-tags"
        )


def _header(
    vcf: VcfFile,
    contents: _Contents,
    rule: AlleleRule,
    what: Annotation,
    job: dict[str, Any],
) -> list[str]:
    """The input's header, plus missing contigs, the tags and the command line."""
    version = versions().get("dnagpt-fast", "unknown")
    origin = f'Source="dnagpt_fast",Version="{version}"'
    how = f"rule {rule.name}, {rule.strands} strand(s), {rule.phases} phase(s)"
    kept = [
        line
        for line in vcf.header[:-1]
        if not line.startswith((COMMAND, *(f"##INFO=<ID={name}," for name in TAGS)))
    ]
    new = [
        f"##contig=<ID={contig}" + (f",length={length}>" if length else ">")
        for contig, length in contents.contigs.items()
    ]
    new += [
        f'##INFO=<ID={name},Number=A,Type=Float,Description="{text} ({how})",{origin}>'
        for name, text in (NUMBERS if what.calibration is None else {**NUMBERS, **CALIBRATED}).items()
    ]
    reasons = "; ".join(f"{name}: {text}" for name, text in FLAGS.items())
    new.append(
        f'##INFO=<ID={FLAG},Number=A,Type=String,Description="Why there is no score, or a weak one. {reasons}",'
        f"{origin}>"
    )
    command = what.command.replace('"', "'")
    calibration = "none" if job["calibration"] is None else f"sha256:{job['calibration']}"
    new.append(
        f'{COMMAND}<ID=dnagpt_fast,Version="{version}",Model="sha256:{job["model"]}",'
        f'Genome="sha256:{job["genome"]}",Calibration="{calibration}",'
        f'Rule="{rule.name}",ContextBp={rule.reach.context_bp},AfterBp={rule.reach.after_bp},'
        f"StrideTokens={rule.reach.stride},Strands={rule.strands},"
        f'Phases={rule.phases},Background="reference",Date="{date.today().isoformat()}",CommandLine="{command}">'
    )
    return [*kept, *new, vcf.header[-1]]


def _write(
    vcf: VcfFile,
    contents: _Contents,
    genome: Genome,
    header: list[str],
    journal: Journal,
    what: Annotation,
    summary: Summary,
) -> None:
    blocks = -(-contents.records // BLOCK_RECORDS)

    def scored() -> Iterator[tuple[Record, list[AlleleScore]]]:
        for record, scores in zip(vcf.records(), journal.scores(blocks), strict=True):
            for score in scores:
                summary.flags.update(score.flags)
            yield record, scores

    def lines() -> Iterator[str]:
        yield from header
        for record, scores in scored():
            yield with_info(record.text, tags_of(scores), TAGS if what.overwrite_tags else frozenset())

    calibrated = what.calibration is not None
    columns = (*COLUMNS, *CALIBRATED_COLUMNS) if calibrated else COLUMNS
    if what.output.endswith(".tsv"):
        with TextFile(what.output) as table:
            table.write("\t".join((*columns, "flag")))
            for row in (row for pair in scored() for row in _rows(*pair, calibrated)):
                table.write("\t".join("" if value is None else _text(value) for value in row))
    elif what.output.endswith(".parquet"):
        _write_parquet(what.output, columns, (row for pair in scored() for row in _rows(*pair, calibrated)))
    else:
        longest = max([*genome.lengths.tolist(), *(length or 0 for length in vcf.contigs.values())])
        write_vcf(what.output, lines(), indexed=contents.is_sorted, longest_contig_bp=longest)


def tags_of(scores: list[AlleleScore]) -> dict[str, str]:
    """Tag -> its values, one for each alternative, `.` for a missing one; tags without any value are left out."""
    names = (*NUMBERS, *CALIBRATED)
    columns = [[_numbers(score)[i] for score in scores] for i in range(len(names))]
    tags = {
        name: ",".join("." if value is None else _text(value) for value in column)
        for name, column in zip(names, columns, strict=True)
        if any(value is not None for value in column)
    }
    if any(score.flags for score in scores):
        tags[FLAG] = ",".join("|".join(score.flags) or "." for score in scores)
    return tags


def _numbers(score: AlleleScore) -> tuple[float | None, ...]:
    """In the order of NUMBERS, then CALIBRATED."""
    numbers = score.llr, score.llr_forward, score.llr_reverse, score.sd, score.conditional
    return *numbers, score.calibrated, score.z


def _text(value: float | int | str) -> str:
    """Numbers with 4 significant digits."""
    return f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)


def _rows(
    record: Record, scores: list[AlleleScore], calibrated: bool
) -> Iterator[list[float | int | str | None]]:
    name = record.text.split("\t", 3)[2]
    for alternative, score in zip(record.alternatives, scores, strict=True):
        place = (record.contig, record.start_bp + 1, name, record.reference, alternative)
        numbers = _numbers(score)
        yield [*place, *numbers[: None if calibrated else len(NUMBERS)], "|".join(score.flags)]


def _write_parquet(
    path: str, columns: tuple[str, ...], rows: Iterator[list[float | int | str | None]]
) -> None:
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    names = (*columns, "flag")
    kinds = [pa.string(), pa.int64(), *[pa.string()] * 3, *[pa.float64()] * (len(columns) - 5), pa.string()]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with whole(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while some := list(islice(rows, 100_000)):
            table = dict(zip(names, zip(*some, strict=True), strict=True))
            writer.write_table(pa.table(table, schema=schema))
