"""The work of the commands generate and score on sequence files: read, call one module, write."""

import hashlib
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnagpt_fast.cli.command import json_line
from dnagpt_fast.evaluation.controls import MOST_BP, ControlledScore, score_with_controls
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place, Places, places_of
from dnagpt_fast.model.constraints import Constraints
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.generation import Generated, generate_sequences
from dnagpt_fast.model.marginals import context_prefix, substitution_scores
from dnagpt_fast.model.products import use_products
from dnagpt_fast.model.score import Score, score
from dnagpt_fast.model.token_windows import usable_bp
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.ops.traits import refuse_products
from dnagpt_fast.output_files import FastaFile, TextFile, fasta_record, is_stream
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.progress import Progress, counting, shortened, standard_error, working
from dnagpt_fast.training.devices import pick_device, pick_dtype
from dnagpt_fast.training.job_folder import JobFolder
from dnagpt_fast.training.row_journal import row_journal
from dnagpt_fast.vocab import reverse_complement
from dnagpt_fast.weights.forms import load_model

logger = logging.getLogger(__name__)
HASHED_BP = 1 << 20
SUBSTITUTION_COLUMNS = ("contig", "position", "reference", "alternative", "log_ratio")
SCORE_FIELDS = tuple(field.name for field in fields(Score))
COMPARED_BP = 20_000
"""Bases over which `score` compares other products with float32."""


@dataclass(frozen=True)
class Where:
    """The requested places of a genome; see genome.selection."""

    regions: tuple[str, ...] = ()
    bed: Path | None = None
    window_bp: int | None = None

    @property
    def is_given(self) -> bool:
        return bool(self.regions) or self.bed is not None

    def places(self, genome: Genome) -> Places:
        return places_of(genome, self.regions, self.bed, self.window_bp)


def open_model(
    path: Path,
    device: str | None,
    dtype: str | None,
    num_heads: int | None = None,
    products: str = "float32",
) -> tuple[DNAGPT, KmerTokenizer]:
    """device: default cuda if available. dtype: default as stored, but float32 for half precision on the CPU. products:
    of the matrices, see model.products."""
    refuse_products(products, "--products")
    place, wanted = pick_device(device, what="--device"), pick_dtype(dtype, what="--dtype")
    with working(f"loading {path}"):
        model, tokenizer = load_model(path, num_heads=num_heads, device=place, dtype=wanted)
    if wanted is None and place.type == "cpu" and model.transformer.wte.weight.dtype == torch.float16:
        model = model.float()
    weight = model.transformer.wte.weight
    logger.info(
        "%s: %d blocks, %s parameters, %s on %s, products %s, vocabulary k = %d",
        path, len(model.transformer.h), f"{sum(p.numel() for p in model.parameters()):,}", weight.dtype, weight.device,
        products, tokenizer.k,
    )  # fmt: skip
    return use_products(model, products, what="--products"), tokenizer


def check_lengths(tokenizer: KmerTokenizer, genome: Genome, places: Iterable[Place]) -> None:
    """Raises ValueError, which names it, for a place that is too short for the vocabulary."""
    for place in places:
        try:
            usable_bp(tokenizer, place.end_bp - place.start_bp)
        except ValueError as error:
            raise ValueError(
                f"{genome.path}: {place.name}: {error}: leave it out by --region or --bed"
            ) from error


def ranges(genome: Genome, places: Iterable[Place]) -> Iterator[PackedRange]:
    return (genome.range(*place[1:]) for place in places)


def identity(
    model: DNAGPT, tokenizer: KmerTokenizer, genome: Genome, places: Iterable[Place], settings: dict[str, Any]
) -> dict[str, Any]:
    """What a row of a job depends on, to the last bit, as --resume compares it: model, sequences, settings, device."""
    digest = hashlib.sha256()
    total = sum(place.end_bp - place.start_bp for place in places)
    with counting(total, "base", "bp/s hashed") as progress:
        for place in places:
            digest.update("\t".join(map(str, place)).encode() + b"\n")
            for start in range(place.start_bp, place.end_bp, HASHED_BP):
                end = min(start + HASHED_BP, place.end_bp)
                digest.update(genome.sequence(place.contig, start, end).encode())
                progress(end - start)
    return {
        "model": model.content_hash(),
        "vocabulary": f"k = {tokenizer.k}, {'dynamic' if tokenizer.dynamic_kmer else 'fixed'}",
        "sequences": digest.hexdigest(),
        "device": model.transformer.wte.weight.device.type,
        "products": model.products,
        **{name: value for name, value in settings.items() if name != "max_tokens"},
    }


def prompts_of(source: Path, where: Where, prefix: str) -> tuple[list[str], list[str]]:
    """(prompts, names) of the places of a genome, reverse-complemented if the strand is -."""
    prompts, names = [], []
    with Genome.open(source) as genome:
        for name, contig, start_bp, end_bp, strand in where.places(genome):
            bases = genome.sequence(contig, start_bp, end_bp)
            prompts.append(prefix + (reverse_complement(bases) if strand == "-" else bases))
            names.append("_".join(name.split()))
    return prompts, names


def constraints_of(
    gc: tuple[float, float] | None, fixed: Sequence[str], forbidden: Sequence[str], *, both_strands: bool
) -> Constraints | None:
    """fixed: POSITION:LETTERS each. None without any constraint. Raises ValueError for one that is malformed."""
    letters: dict[int, str] = {}
    for text in fixed:
        position, _, wanted = text.partition(":")
        if not position.isdigit() or not wanted:
            raise ValueError(f"--fix {text!r}: wanted POSITION:LETTERS, as 100:TATAAA, the position 0-based")
        if int(position) in letters:
            raise ValueError(f"--fix: position {position} is given twice")
        letters[int(position)] = wanted
    return Constraints(gc, letters, tuple(forbidden), both_strands) or None


def generate_fasta(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    prompts: list[str],
    output: Path | None,
    settings: dict[str, Any],
    names: list[str] | None = None,
    *,
    as_json: bool = False,
) -> int:
    """Writes each sequence as soon as it is made, to a FASTA file or to standard output; returns their number. names:
    of the prompts; default prompt1, prompt2 ... as_json: an object for each sequence instead of FASTA."""
    count = 0
    with ExitStack() as stack:
        write: Callable[[str, str], object]
        if output is None:
            write = _to_stdout
        else:
            write = stack.enter_context(FastaFile(output)).write
        shown = stack.enter_context(Progress(standard_error(), 0, 1, "token", at_once=False))
        began = time.monotonic()

        def report(done: int, total: int) -> None:
            shown.steps = total
            shown.update(done, f"{shortened(done / max(time.monotonic() - began, 1e-9))} tokens/s")

        for one in generate_sequences(model, tokenizer, prompts, progress=report, **settings):
            made = about(tokenizer, one, names[one.prompt] if names else f"prompt{one.prompt + 1}")
            if as_json:
                _line_to_stdout(json_line(made))
            else:
                write(*fasta_of(made))
            count += 1
    return count


def about(tokenizer: KmerTokenizer, one: Generated, name: str) -> dict[str, Any]:
    """A sequence with its prompt. It cannot contain tokens that are not bases: left_out_tokens is their number."""
    prompt = tokenizer.decode_bases(one.prompt_ids)
    return {
        "name": f"{name}_sample{one.sample + 1}",
        "prompt_bp": len(prompt),
        "new_tokens": len(one.new_ids),
        "left_out_tokens": sum(i < len(tokenizer.reserved_tokens) for i in one.new_ids),
        "sequence": one.bases(tokenizer),
    }


def fasta_of(made: dict[str, Any]) -> tuple[str, str]:
    """Title and bases."""
    shown = [f"{key}={made[key]}" for key in ("prompt_bp", "new_tokens", "left_out_tokens")]
    return " ".join([made["name"], *shown[: 3 if made["left_out_tokens"] else 2]]), made["sequence"]


@contextmanager
def bases_done(
    total_bp: int, both_strands: bool, finished: Iterable[Place] = (), controls: int = 0
) -> Iterator[Callable[[int], None]]:
    """What shall be called with how many more bases are done: a bar on a terminal, elsewhere a line now and then.
    finished: places of an earlier run, which count as done. controls: shuffles of each place, which count too."""
    strands = (1 + both_strands) * (1 + controls)
    before = strands * sum(place.end_bp - place.start_bp for place in finished)
    with counting(strands * total_bp, "base", "bp/s", before=before) as report:
        yield report


def write_scores(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    source: Path,
    output: Path | None,
    where: Where,
    settings: dict[str, Any],
    *,
    controls: int = 0,
    seed: int = 0,
    resume: bool = False,
    as_json: bool = False,
) -> int:
    """Writes a header, then name, length_bp, scored_bp, log_likelihood (nats) and log_likelihood_per_bp of each place,
    separated by tabs; for given ranges also contig, start_bp, end_bp and strand; with controls also control_mean,
    control_sd and z (evaluation/controls.py).

    output  a file, which gets its name when it is complete; or a stream or None (standard output), line by line
    resume  continue the unfinished job of this output
    as_json without an output, objects instead of the table
    Returns the number of rows. Raises ValueError (JournalError for a job that cannot be continued) and OSError.
    """
    columns = ("contig", "start_bp", "end_bp", "strand") if where.is_given else ()
    of_controls = ("control_mean", "control_sd", "z") if controls else ()
    head = (
        "name",
        *columns,
        "length_bp",
        "scored_bp",
        "log_likelihood",
        "log_likelihood_per_bp",
        *of_controls,
    )

    def row(place: Place, found: Score | ControlledScore) -> tuple[Any, ...]:
        of_place = (getattr(place, column) for column in ("name", *columns))
        one = found.score if isinstance(found, ControlledScore) else found
        beside = (found.mean, found.sd, found.z) if isinstance(found, ControlledScore) else ()
        return *of_place, one.length_bp, one.scored_bp, one.log_likelihood, one.per_bp, *beside

    with Genome.open(source) as genome:
        places = where.places(genome)
        check_lengths(tokenizer, genome, places)
        for place in places if controls else ():
            if place.end_bp - place.start_bp > MOST_BP:
                raise ValueError(
                    f"{source}: {place.name}: {place.end_bp - place.start_bp:,} bp: --shuffles shuffles up to "
                    f"{MOST_BP:,}: cut it by --window-bp, --region or --bed"
                )

        def scores(finished: int = 0) -> Iterator[Score | ControlledScore]:
            done, rest = itertools.islice(places, finished), itertools.islice(places, finished, None)
            with bases_done(places.total_bp, settings["both_strands"], done, controls) as progress:
                pieces = ranges(genome, rest)
                if controls:
                    yield from score_with_controls(
                        model, tokenizer, pieces, controls=controls, seed=seed, progress=progress, **settings
                    )
                else:
                    yield from score(model, tokenizer, pieces, progress=progress, **settings)

        if output is None or is_stream(output):
            found = (row(place, one) for place, one in zip(places, scores(), strict=True))
            return write_rows(head, found, output, as_json=as_json)
        of_shuffles = {"controls": controls, "seed": seed} if controls else {}
        job = identity(model, tokenizer, genome, places, {**settings, **of_shuffles})
        folder = JobFolder(output, "scores")
        width = len(SCORE_FIELDS) + (2 if controls else 0)
        with row_journal(folder, job, (width,), "<f8", resume=resume) as journal:
            for one in scores(journal.count):
                journal.append(_row(one))
            kept = (row(place, _of_row(one)) for place, one in zip(places, journal.rows(), strict=True))
            return write_rows(head, kept, output)


def _row(found: Score | ControlledScore) -> list[float]:
    """float64 holds the counts exactly."""
    if isinstance(found, ControlledScore):
        return [*_row(found.score), found.mean, found.sd]
    return [getattr(found, field) for field in SCORE_FIELDS]


def _of_row(row: np.ndarray) -> Score | ControlledScore:
    own = Score(float(row[0]), *map(int, row[1 : len(SCORE_FIELDS)]))
    if len(row) == len(SCORE_FIELDS):
        return own
    return ControlledScore(own, *map(float, row[len(SCORE_FIELDS) :]))


def use_compared_products(
    model: DNAGPT, tokenizer: KmerTokenizer, source: Path, where: Where, prefix: str, products: str
) -> str:
    """Changes the products of the model as `use_products`; returns what changes in the score of the first places."""
    pieces, left = [], COMPARED_BP
    with Genome.open(source) as genome:
        for _, contig, start_bp, end_bp, strand in where.places(genome):
            length = min(end_bp - start_bp, left)
            if length >= tokenizer.k:
                pieces.append(genome.range(contig, start_bp, start_bp + length, strand))
                left -= length
            if left < tokenizer.k:
                break

        def nats_per_bp() -> float:
            scores = list(score(model, tokenizer, pieces, prefix=prefix))
            return -sum(one.log_likelihood for one in scores) / max(sum(one.scored_bp for one in scores), 1)

        before = nats_per_bp()
        use_products(model, products, what="--products")
        after = nats_per_bp()
    return (
        f"--products {products}: {after:.5f} nats/bp, float32 {before:.5f}, a change of {after - before:+.5f} over the "
        f"first {COMPARED_BP - left:,} bases"
    )


def substitution_rows(
    model: DNAGPT, tokenizer: KmerTokenizer, source: Path, substitutions: Iterable[str], prefix: str
) -> Iterator[tuple[Any, ...]]:
    """A row of SUBSTITUTION_COLUMNS for each CONTIG:POSITION:BASE, 0-based: log P(BASE) - log P(the genome's base),
    given as many k-mers before it as the model's context holds."""
    parsed = [_substitution(text) for text in substitutions]
    most = model.max_len - len(context_prefix(tokenizer, prefix))
    with Genome.open(source) as genome:
        for contig, position, base in parsed:
            context_bp = tokenizer.k * min(position // tokenizer.k, most)
            text = genome.sequence(contig, position - context_bp, position + 1)
            (ratio,) = substitution_scores(model, tokenizer, text, [(context_bp, base)], prefix=prefix)
            yield contig, position, text[-1], base, ratio


def write_rows(
    columns: Sequence[str], rows: Iterable[tuple[Any, ...]], output: Path | None, *, as_json: bool = False
) -> int:
    """Writes a table to a file, completely or not at all, or to standard output line by line; returns the number of
    rows. as_json: without an output, an object for each row."""
    with ExitStack() as stack:
        write = _line_to_stdout if output is None else stack.enter_context(TextFile(output)).write
        objects = as_json and output is None
        if not objects:
            write("\t".join(columns))
        count = 0
        for row in rows:
            count += 1
            if objects:
                write(json_line(dict(zip(columns, row, strict=True))))
            else:
                write("\t".join(_text(*pair) for pair in zip(columns, row, strict=True)))
    return count


def _text(column: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if column == "z" else f"{value:.6f}"


def _substitution(text: str) -> tuple[str, int, str]:
    contig, _, rest = text.rpartition(":")
    contig, _, position = contig.rpartition(":")
    if not contig or not position.isdigit() or rest not in ("A", "C", "G", "T"):
        raise ValueError(
            f"substitution {text!r}: wanted CONTIG:POSITION:BASE, as chr22:1234:A, the position 0-based"
        )
    return contig, int(position), rest


def _to_stdout(title: str, bases: str) -> None:
    sys.stdout.write(fasta_record(title, bases))
    sys.stdout.flush()


def _line_to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
