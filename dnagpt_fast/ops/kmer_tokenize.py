"""Windows of a packed genome -> k-mer token ids.

id = first_id(k) + sum_j digit(base_j) * 5^(k-1-j), digits N A G C T = 0..4 (dnagpt_fast/vocab.py; arXiv 2307.05628).
A reversed window (orientation bit 0) is first read from its last base to its first and then cut into k-mers; complement
(bit 1) swaps A with T and C with G; N stays N.
"""

from typing import Any

import torch

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.output import output
from dnagpt_fast.ops.registration import register_op
from dnagpt_fast.packed import BASES_PER_BYTE, PackedGenome
from dnagpt_fast.vocab import MAX_K, Vocabulary

TOKEN_BYTES = {torch.uint16: 2, torch.int32: 4, torch.int64: 8}
REVERSED = 1
COMPLEMENTED = 2
DIGIT_OF_CODE = (4, 3, 1, 2)  # T C A G


def window_codes(
    genome: PackedGenome, contig: torch.Tensor, start_bp: torch.Tensor, length_bp: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """2-bit codes uint8 (B, length_bp) of windows in forward direction, and bool (B, length_bp), True for N."""
    position = start_bp[:, None] + torch.arange(length_bp, device=genome.device)
    byte = genome.packed[genome.byte_offset[contig][:, None] + position // BASES_PER_BYTE]
    codes = byte >> (6 - 2 * (position % BASES_PER_BYTE)).to(torch.uint8) & 3
    is_n = torch.zeros_like(codes, dtype=torch.bool)
    for row, c in enumerate(contig.tolist()):
        first, last = genome.n_block_index[c : c + 2].tolist()
        for start, end in zip(
            genome.n_block_start_bp[first:last].tolist(),
            genome.n_block_end_bp[first:last].tolist(),
            strict=True,
        ):
            is_n[row] |= (position[row] >= start) & (position[row] < end)
    return codes, is_n


def kmer_tokenize_reference(
    genome: PackedGenome,
    contig: torch.Tensor,
    start_bp: torch.Tensor,
    n_tokens: int,
    orientation: torch.Tensor,
    k: int,
    dynamic: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Token ids (B, n_tokens) of `dtype`; contig, start_bp, orientation int64 (B,)."""
    codes, is_n = window_codes(genome, contig, start_bp, n_tokens * k)
    complemented = (orientation & COMPLEMENTED).to(torch.uint8)[:, None]
    digit = torch.tensor(DIGIT_OF_CODE, device=genome.device)[(codes ^ complemented).long()]
    digit = torch.where(is_n, 0, digit)
    digit = torch.where((orientation & REVERSED).bool()[:, None], digit.flip(1), digit)
    power = 5 ** torch.arange(k - 1, -1, -1, device=genome.device)
    kmers = digit.view(len(contig), n_tokens, k)
    return ((kmers * power).sum(2) + Vocabulary(k, dynamic).first_id(k)).to(dtype)


def kmer_tokenize(
    genome: Any,
    contig: Any,
    start_bp: Any,
    n_tokens: int,
    orientation: Any = 0,
    *,
    k: int = 6,
    dynamic: bool = True,
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Ids (B, n_tokens) of the k-mers of B windows, on the genome's device.

    genome       a Genome or its PackedGenome
    contig       integers (B,): index into the genome's contigs
    start_bp     integers (B,): first base of each window on the forward strand; a window spans n_tokens * k bases
    orientation  int or integers (B,): bit 0 reads the window backwards, bit 1 complements it, 3 = reverse complement
    k, dynamic   the vocabulary (dnagpt_fast/vocab.py), k in 1..6
    dtype        torch.uint16, int32 or int64; None: the dtype of `out`, or int32
    out          contiguous (B, n_tokens) of that dtype on that device, to write into and return; None: a new tensor

    Bases under N blocks are N. Raises IndexError for an unknown contig or a window that leaves its contig, ValueError
    for any other bad argument.

    The host does not read windows in device memory: the kernel writes the unknown token for a window that leaves its
    contig, and the next call on this genome, or ops.synchronize(genome), raises IndexError.

    >>> from pathlib import Path
    >>> from dnagpt_fast import Genome
    >>> _ = Path("one.fa").write_text(">one\\nACGTAC\\n")
    >>> kmer_tokenize(Genome.open("one.fa"), [0, 0], [0, 0], 2, [0, 3], k=3).tolist()
    [[106, 172], [135, 153]]
    """
    arrays = getattr(genome, "arrays", genome)
    device = arrays.packed.device
    on_host = native.on_host(device)
    if dtype is None:
        dtype = torch.int32 if out is None else out.dtype
    if dtype not in TOKEN_BYTES:
        raise ValueError(f"dtype {dtype}: wanted torch.uint16, torch.int32 or torch.int64")
    if type(k) is not int or not 1 <= k <= MAX_K:
        raise ValueError(f"k = {k!r}: wanted an integer 1..{MAX_K}")
    if type(n_tokens) is not int or not 0 <= n_tokens < 1 << 48:
        raise ValueError(f"n_tokens = {n_tokens!r}: wanted an integer >= 0")
    if torch.compiler.is_compiling():
        ids = torch.ops.dnagpt_fast.kmer_tokenize(
            *native.six_arrays(arrays), *_as_rows(contig, start_bp, orientation), n_tokens, k, dynamic, dtype
        )
        return ids if out is None else out.copy_(ids)
    same, rows = 0, {"contig": contig, "start_bp": start_bp}
    if type(orientation) is int:
        same = orientation
    else:
        rows["orientation"] = orientation
    rows, rows_on_host = native.window_rows(device, **rows)
    count = rows["contig"].numel()
    addresses = _addresses(rows)
    if rows_on_host:
        native._native.check_windows(native.genome_view(arrays), *addresses, same, count, 0, n_tokens * k)
    if not on_host:
        rows = native.on_device(device, rows)
    tokens = output(out, (count, n_tokens), dtype, device)
    if dispatch.choose("kmer_tokenize", device.type) == "reference":
        each = rows.get("orientation", torch.full_like(rows["contig"], same))
        ids = kmer_tokenize_reference(
            arrays, rows["contig"], rows["start_bp"], n_tokens, each, k, dynamic, dtype
        )
        return tokens.copy_(ids)
    what = (n_tokens, k, dynamic, TOKEN_BYTES[dtype], tokens.data_ptr())
    if on_host:
        view = native.genome_view(arrays)
        native._native.kmer_tokenize(
            view, *addresses, same, count, *what, torch.get_num_threads(), out is None
        )
    else:
        genome_on_device, stream = native.cuda_genome(arrays), native.current_stream(device)
        native._native.kmer_tokenize_cuda(
            genome_on_device.view, *_addresses(rows), same, count, *what, stream
        )
    return tokens


def _addresses(rows: dict[str, torch.Tensor]) -> tuple[int, int, int]:
    orientation = rows["orientation"].data_ptr() if "orientation" in rows else 0
    return rows["contig"].data_ptr(), rows["start_bp"].data_ptr(), orientation


def _as_rows(contig: torch.Tensor, start_bp: torch.Tensor, orientation: Any) -> tuple[torch.Tensor, ...]:
    each = torch.full_like(contig, orientation) if type(orientation) is int else orientation
    return contig, start_bp, each


def _kmer_tokenize(*arguments: Any) -> torch.Tensor:
    *rows, n_tokens, k, dynamic, dtype = arguments
    contig, start_bp, orientation = rows[6:]
    genome = native.genome_of(*rows[:6])
    return kmer_tokenize(genome, contig, start_bp, n_tokens, orientation, k=k, dynamic=dynamic, dtype=dtype)


def _shape_of_kmer_tokenize(*arguments: Any) -> torch.Tensor:
    packed, contig, n_tokens, dtype = arguments[0], arguments[6], arguments[9], arguments[12]
    return packed.new_empty((contig.shape[0], n_tokens), dtype=dtype)


# What torch.compile sees: one op over the six arrays of a genome, which it does not trace into.
register_op(
    f"kmer_tokenize({native.SCHEMA}, Tensor contig, Tensor start_bp, Tensor orientation, "
    "SymInt n_tokens, int k, bool dynamic, ScalarType dtype) -> Tensor",
    _kmer_tokenize,
    fake=_shape_of_kmer_tokenize,
)
