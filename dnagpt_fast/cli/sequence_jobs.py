"""What the commands generate, embed and score do with sequence files: read, call one module, write."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from dnagpt_fast.genome import Genome
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.generation import Generated, generate_sequences
from dnagpt_fast.model.marginals import context_prefix, substitution_scores
from dnagpt_fast.model.score import score
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.output_files import FastaFile, TextFile, VectorFile, fasta_record, refuse_inputs
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.weights.forms import load_model

Region = tuple[str, str, int, int]
"""Name of a row, contig, start_bp, end_bp."""


def open_model(
    path: Path, device: str | None, dtype: str | None, num_heads: int | None = None
) -> tuple[DNAGPT, KmerTokenizer]:
    """device: default cuda where there is one. dtype: default as stored, but float32 for half precision on the CPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = None if dtype is None else getattr(torch, dtype, None)
    if dtype is not None and not (isinstance(wanted, torch.dtype) and wanted.is_floating_point):
        raise ValueError(f"dtype {dtype}: wanted float32, bfloat16 or float16")
    model, tokenizer = load_model(path, num_heads=num_heads, device=device, dtype=wanted)
    if wanted is None and device == "cpu" and model.transformer.wte.weight.dtype == torch.float16:
        model = model.float()
    return model, tokenizer


def generate_fasta(
    model: DNAGPT, tokenizer: KmerTokenizer, prompts: list[str], output: Path | None, settings: dict[str, Any]
) -> int:
    """Writes each sequence as soon as it is made, to a FASTA file or to standard output; how many."""
    count = 0
    with ExitStack() as stack:
        write: Callable[[str, str], object]
        if output is None:
            write = _to_stdout
        else:
            write = stack.enter_context(FastaFile(output)).write
        for one in generate_sequences(model, tokenizer, prompts, **settings):
            write(*fasta_of(tokenizer, one))
            count += 1
    return count


def fasta_of(tokenizer: KmerTokenizer, one: Generated) -> tuple[str, str]:
    """Title and bases of a sequence with its prompt. Tokens that are no bases cannot stand in FASTA: the title counts
    them."""
    prompt = tokenizer.decode_bases(one.prompt_ids)
    title = (
        f"prompt{one.prompt + 1}_sample{one.sample + 1} prompt_bp={len(prompt)} new_tokens={len(one.new_ids)}"
    )
    others = sum(i < len(tokenizer.reserved_tokens) for i in one.new_ids)
    title += f" left_out_tokens={others}" if others else ""
    return title, prompt + tokenizer.decode_bases(one.new_ids)


def regions(genome: Genome, window_bp: int | None) -> Iterator[Region]:
    """Whole contigs, or their windows of window_bp, the last one shorter, named contig:start_bp-end_bp. Empty
    contigs are left out."""
    for contig, length in zip(genome.names, genome.lengths.tolist(), strict=True):
        if window_bp is None:
            if length:
                yield contig, contig, 0, length
            continue
        for start in range(0, length, window_bp):
            end = min(start + window_bp, length)
            yield f"{contig}:{start}-{end}", contig, start, end


def embed_file(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    source: Path,
    output: Path,
    window_bp: int | None,
    settings: dict[str, Any],
) -> tuple[int, int]:
    """Vectors into OUTPUT (.npy or .safetensors), the rows' names into OUTPUT.names, a line each; (rows, width)."""
    _check_window(window_bp)
    names_path = f"{output}.names"
    for path in (output, names_path):
        refuse_inputs(path, source)
    with Genome.open(source) as genome, TextFile(names_path) as names, VectorFile(output) as vectors:
        vectors.write(embed(model, tokenizer, _sequences(genome, window_bp, names), **settings))
        for file in (vectors, names):
            file.finish()
    return vectors.rows, vectors.width or 0


def score_lines(
    model: DNAGPT, tokenizer: KmerTokenizer, source: Path, window_bp: int | None, settings: dict[str, Any]
) -> Iterator[str]:
    """A header, then name, length_bp, scored_bp, log_likelihood (nats), nats_per_bp of each sequence, by tabs."""
    _check_window(window_bp)
    yield "name\tlength_bp\tscored_bp\tlog_likelihood\tlog_likelihood_per_bp"
    with Genome.open(source) as genome:
        rows = regions(genome, window_bp)
        sequences = (genome.range(contig, start, end) for _, contig, start, end in regions(genome, window_bp))
        for one, (name, *_) in zip(score(model, tokenizer, sequences, **settings), rows, strict=True):
            yield f"{name}\t{one.length_bp}\t{one.scored_bp}\t{one.log_likelihood:.6f}\t{one.per_bp:.6f}"


def substitution_lines(
    model: DNAGPT, tokenizer: KmerTokenizer, source: Path, substitutions: Iterable[str], prefix: str
) -> Iterator[str]:
    """For each CONTIG:POSITION:BASE, 0-based: log P(BASE) - log P(the genome's base), given all the k-mers before it
    that the model can read."""
    parsed = [_substitution(text) for text in substitutions]
    most = model.max_len - len(context_prefix(tokenizer, prefix))
    yield "contig\tposition\treference\talternative\tlog_ratio"
    with Genome.open(source) as genome:
        for contig, position, base in parsed:
            context_bp = tokenizer.k * min(position // tokenizer.k, most)
            text = genome.sequence(contig, position - context_bp, position + 1)
            (ratio,) = substitution_scores(model, tokenizer, text, [(context_bp, base)], prefix=prefix)
            yield f"{contig}\t{position}\t{text[-1]}\t{base}\t{ratio:.6f}"


def write_lines(lines: Iterable[str], output: Path | None) -> None:
    """To a file that appears when whole, or to standard output line by line."""
    if output is None:
        for line in lines:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        return
    with TextFile(output) as out:
        for line in lines:
            out.write(line)


def _sequences(genome: Genome, window_bp: int | None, names: TextFile) -> Iterator[PackedRange]:
    for name, contig, start, end in regions(genome, window_bp):
        names.write(name)
        yield genome.range(contig, start, end)


def _substitution(text: str) -> tuple[str, int, str]:
    contig, _, rest = text.rpartition(":")
    contig, _, position = contig.rpartition(":")
    if not contig or not position.isdigit() or rest not in ("A", "C", "G", "T"):
        raise ValueError(
            f"substitution {text!r}: wanted CONTIG:POSITION:BASE, as chr22:1234:A, the position 0-based"
        )
    return contig, int(position), rest


def _check_window(window_bp: int | None) -> None:
    if window_bp is not None and window_bp < 1:
        raise ValueError(f"window_bp = {window_bp}: wanted 1 or more")


def _to_stdout(title: str, bases: str) -> None:
    sys.stdout.write(fasta_record(title, bases))
    sys.stdout.flush()
